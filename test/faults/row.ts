import type { Bench } from './bench.js'

/** A fault of the catalogue, and what has to be seen when it happens. */
export interface Row {
  /** As in the catalogue: `T4`; a variant has a word more, `T17 expired`. */
  readonly id: string
  readonly fault: string
  /** One of those that every change has to pass. */
  readonly gate?: true
  /** @returns what was seen, in a few words. @throws what was not as it has to be */
  readonly run: (bench: Bench) => Promise<string>
}

/** A fault of the catalogue that is not put to the test here. */
export interface NotRun {
  readonly id: string
  readonly fault: string
  readonly reason: string
}

/** What is missing on this machine for a row; such a row counts as not run. */
export class CannotRun extends Error {
  override readonly name = 'CannotRun'
}
