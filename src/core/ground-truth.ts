import { UsageError } from './errors.js'
import { fieldsAt, listAt, pairAt, textAt, timeAt } from './json-fields.js'
import type { Pair } from './pair.js'

/** From `fromSeconds` up to `toSeconds`, unix seconds. */
export interface Window {
  readonly name: string
  readonly fromSeconds: number
  readonly toSeconds: number
}

/** While a fault was in force, and on which edges it could be seen. */
export interface FaultWindow extends Window {
  /** Empty: on every edge. */
  readonly pairs: readonly Pair[]
}

/** What really happened, to hold verdicts and incidents against. */
export interface GroundTruth {
  readonly faults: readonly FaultWindow[]
  /** Too short to be an incident, such as a burst of users. */
  readonly transients: readonly Window[]
}

const WINDOW_KEYS = ['name', 'from', 'to']

/**
 * The content of a ground-truth file: `{"faults": [{"name", "from", "to", "pairs": [{"source", "destination"}]}],
 * "transients": [{"name", "from", "to"}]}`, times in unix seconds. An empty list may be left out.
 *
 * @param what - names the file, for the message
 * @throws {UsageError} naming the place, what was expected and what came
 */
export function parseGroundTruth(document: unknown, what: string): GroundTruth {
  const truth = fieldsAt(document, what, ['faults', 'transients'])
  return {
    faults: listAt(truth, 'faults', 'optional').map((item, i) => {
      const place = `${what}: faults[${i}]`
      const fault = fieldsAt(item, place, [...WINDOW_KEYS, 'pairs'])
      return {
        ...parseWindow(item, place),
        pairs: listAt(fault, 'pairs', 'optional').map((pair, k) =>
          pairAt(fieldsAt(pair, `${place}: pairs[${k}]`, ['source', 'destination'])),
        ),
      }
    }),
    transients: listAt(truth, 'transients', 'optional').map((item, i) => {
      const place = `${what}: transients[${i}]`
      fieldsAt(item, place, WINDOW_KEYS)
      return parseWindow(item, place)
    }),
  }
}

function parseWindow(item: unknown, place: string): Window {
  const fields = fieldsAt(item, place)
  const fromSeconds = timeAt(fields, 'from')
  const toSeconds = timeAt(fields, 'to')
  if (!(fromSeconds < toSeconds)) {
    throw new UsageError(`${place}: to: expected a time after from (${fromSeconds}), got ${toSeconds}`)
  }
  return { name: textAt(fields, 'name'), fromSeconds, toSeconds }
}

/** The document that `parseGroundTruth` reads. */
export function groundTruthJson({ faults, transients }: GroundTruth): object {
  const window = ({ name, fromSeconds, toSeconds }: Window): object => ({ name, from: fromSeconds, to: toSeconds })
  return {
    faults: faults.map((fault) => ({
      ...window(fault),
      pairs: fault.pairs.map(({ source, destination }) => ({ source, destination })),
    })),
    transients: transients.map(window),
  }
}
