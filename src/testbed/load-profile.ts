import { UsageError } from '../core/errors.js'
import { type Fields, fieldsAt, listAt, numberAt } from '../core/json-fields.js'
import { glimpse } from '../core/series.js'
import type { LoadProfile } from './load.js'

/** The document that the testbed, Locust and k6 read alike. */
export function loadProfileJson({ shape, spawnRate, waitSeconds }: LoadProfile): object {
  const { steps, stepSeconds, transients } = shape
  return {
    steps: steps.map(({ fromUsers, toUsers }) => [fromUsers, toUsers]),
    stepSeconds,
    transients: transients.map(({ fromSeconds, toSeconds, users }) => ({ from: fromSeconds, to: toSeconds, users })),
    spawnRate,
    waitSeconds: waitSeconds === null ? null : [waitSeconds.min, waitSeconds.max],
  }
}

/**
 * @param what - names the file, for messages
 * @throws {UsageError} naming the place, what was expected and what came
 */
export function parseLoadProfile(document: unknown, what: string): LoadProfile {
  const profile = fieldsAt(document, what, ['steps', 'stepSeconds', 'transients', 'spawnRate', 'waitSeconds'])
  const steps = listAt(profile, 'steps').map((step, i) => {
    const [fromUsers, toUsers] = twoNumbers(step, `${what}: steps[${i}]`)
    return { fromUsers, toUsers }
  })
  if (steps.length === 0) throw new UsageError(`${what}: steps: expected at least one, got none`)
  const transients = listAt(profile, 'transients', 'optional').map((item, i) => {
    const transient = fieldsAt(item, `${what}: transients[${i}]`, ['from', 'to', 'users'])
    const fromSeconds = numberFrom(transient, 'from', 0)
    return {
      fromSeconds,
      toSeconds: numberFrom(transient, 'to', fromSeconds),
      users: numberFrom(transient, 'users', 0),
    }
  })
  const { waitSeconds } = profile.values
  const [min, max] = waitSeconds === null ? [0, 0] : twoNumbers(waitSeconds, `${what}: waitSeconds`)
  if (max < min) throw new UsageError(`${what}: waitSeconds: expected the shortest first, got ${min} and ${max}`)
  return {
    shape: { steps, stepSeconds: numberFrom(profile, 'stepSeconds', 0.001), transients },
    spawnRate: numberFrom(profile, 'spawnRate', 0.001),
    waitSeconds: waitSeconds === null ? null : { min, max },
  }
}

function numberFrom(fields: Fields, name: string, least: number): number {
  const value = numberAt(fields, name)
  if (value >= least) return value
  throw new UsageError(`${fields.place}: ${name}: expected a number of at least ${least}, got ${value}`)
}

function twoNumbers(value: unknown, place: string): readonly [number, number] {
  const [first, second, ...rest] = Array.isArray(value) ? (value as readonly unknown[]) : []
  const good = (number: unknown): number is number => typeof number === 'number' && number >= 0 && number < Infinity
  if (good(first) && good(second) && rest.length === 0) return [first, second]
  throw new UsageError(`${place}: expected two numbers of at least 0, got ${glimpse(value)}`)
}
