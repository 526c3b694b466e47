import fc from 'fast-check'

import { type FuzzProperty, property } from './fuzz.js'

/** What the test of the watchdog lets loose. */
export const properties: readonly FuzzProperty[] = [
  property({ name: 'hangs', runs: 100 }, fc.integer({ min: 0, max: 9 }), (number) => {
    while (number === 7);
  }),
  property({ name: 'fails', runs: 100 }, fc.integer({ min: 0, max: 1_000 }), (number) => {
    if (number >= 10) throw new Error('too large')
  }),
  property({ name: 'holds', runs: 100 }, fc.integer(), () => undefined),
]
