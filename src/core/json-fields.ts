/*
 * Documents that people may have edited are read field by field. Whatever is not as expected is a UsageError of one line
 * that names the place, what was expected and what came.
 */
import { UsageError } from './errors.js'
import { type Pair, parseServiceName } from './pair.js'
import { glimpse, isObject } from './series.js'

/** An object of a document, and where in it: a file, a line, a path. */
export interface Fields {
  readonly place: string
  readonly values: Readonly<Record<string, unknown>>
}

/** @param known - the only keys that may be there; undefined: any */
export function fieldsAt(value: unknown, place: string, known?: readonly string[]): Fields {
  if (!isObject(value)) throw new UsageError(`${place}: expected an object, got ${glimpse(value)}`)
  const unknown = known === undefined ? undefined : Object.keys(value).find((key) => !known.includes(key))
  if (unknown !== undefined) {
    throw new UsageError(`${place}: expected ${known?.join(', ') ?? ''}, got ${JSON.stringify(unknown.slice(0, 40))}`)
  }
  return { place, values: value }
}

export function objectAt({ values, place }: Fields, name: string): Fields {
  return fieldsAt(values[name], `${place}: ${name}`)
}

function refuse({ values, place }: Fields, name: string, expected: string): never {
  throw new UsageError(`${place}: ${name}: expected ${expected}, got ${glimpse(values[name])}`)
}

/** Not empty. */
export function textAt(fields: Fields, name: string): string {
  const value = fields.values[name]
  return typeof value === 'string' && value.trim() !== '' ? value : refuse(fields, name, 'a text')
}

export function booleanAt(fields: Fields, name: string): boolean {
  const value = fields.values[name]
  return typeof value === 'boolean' ? value : refuse(fields, name, 'true or false')
}

export function numberAt(fields: Fields, name: string): number {
  const value = fields.values[name]
  return typeof value === 'number' && Number.isFinite(value) ? value : refuse(fields, name, 'a number')
}

export function numberOrNullAt(fields: Fields, name: string): number | null {
  return fields.values[name] === null ? null : numberAt(fields, name)
}

/** Unix seconds. */
export function timeAt(fields: Fields, name: string): number {
  const value = fields.values[name]
  if (typeof value === 'number' && value > 1e11) refuse(fields, name, 'a unix time in seconds, not milliseconds')
  return typeof value === 'number' && value >= 0 ? value : refuse(fields, name, 'a unix time in seconds')
}

export function oneOfAt<const T extends string | number>(fields: Fields, name: string, allowed: readonly T[]): T {
  return allowed.find((value) => value === fields.values[name]) ?? refuse(fields, name, `one of ${allowed.join(', ')}`)
}

/** What is absent is empty when `optional`. */
export function listAt(fields: Fields, name: string, optional?: 'optional'): readonly unknown[] {
  const value = fields.values[name]
  if (value === undefined && optional !== undefined) return []
  return Array.isArray(value) ? value : refuse(fields, name, 'an array')
}

export function pairAt(fields: Fields): Pair {
  const service = (name: string): string => parseServiceName(textAt(fields, name), `${fields.place}: ${name}`)
  return { source: service('source'), destination: service('destination') }
}
