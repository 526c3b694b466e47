/* The thread in which a group of properties is tried. */
import { parentPort, workerData } from 'node:worker_threads'

import { askPromtool } from './fuzz-exposition-checks.js'
import type { FuzzAnswer, FuzzProperty, FuzzWork } from './fuzz.js'

const { group, beats } = workerData as { readonly group: string; readonly beats: Int32Array }
const { properties } = (await import(`./fuzz-${group}.js`)) as { readonly properties: readonly FuzzProperty[] }

const say = (answer: FuzzAnswer): void => parentPort?.postMessage(answer)

parentPort?.on('message', ({ name, ...settings }: FuzzWork) => {
  const property = properties.find((candidate) => candidate.name === name)
  const beat = (): void => {
    Atomics.add(beats, 0, 1)
  }
  const checked = property?.check(settings, beat) ?? Promise.resolve(`no such property: ${name}`)
  void checked
    .then((found) => {
      if (found === null) askPromtool()
      return found
    })
    .then(
      (found) => say({ kind: 'done', found }),
      (error: unknown) => say({ kind: 'done', found: String(error) }),
    )
})
say({ kind: 'properties', properties: properties.map(({ name, runs }) => ({ name, runs })) })
