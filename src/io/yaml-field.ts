import { isMap, isNode, isScalar, LineCounter, parseAllDocuments, type Document } from 'yaml'

import { UsageError } from '../core/errors.js'
import { plainName } from '../core/plain-text.js'
import { glimpse, isObject } from '../core/series.js'

/** One place in a YAML file: what stands there, and how to say that it is wrong. */
export interface YamlField {
  /** Undefined when the file has nothing there. */
  readonly value: unknown
  readonly at: (key: string | number) => YamlField
  /** Throws a UsageError that names the file, the line and the field, what was expected and what came. */
  readonly fail: (expected: string) => never
  /** Throws a UsageError that names the file, the line and the field, and gives the reason, which follows the field's name. */
  readonly refuse: (reason: string) => never
}

type Path = readonly (string | number)[]

/**
 * The documents of a YAML file; empty ones are left out.
 *
 * @param options.secret - true: no message repeats a value that stands in the file
 * @throws {UsageError} naming the file and the line when the text is not YAML
 */
export function readYaml(
  text: string,
  file: string,
  { secret = false }: { readonly secret?: boolean } = {},
): YamlField[] {
  const lines = new LineCounter()
  // What the parser would say on stderr of odd keys repeats them.
  const documents: Document[] = parseAllDocuments(text, { lineCounter: lines, logLevel: 'error' })
  return documents.flatMap((document) => {
    const [error] = document.errors
    if (error !== undefined) {
      const reason = error.message.split('\n', 1)[0] ?? ''
      const line = error.linePos?.[0].line ?? 1
      throw new UsageError(
        secret
          ? `${file}, line ${line}: not YAML (${error.code})`
          : `${file} must be YAML: ${reason.replace(/:$/, '')}`,
      )
    }
    const value = valueOf(document, secret ? `${file}: not YAML` : `${file} must be YAML`, secret)
    return value === null || value === undefined ? [] : [fieldOf({ document, lines, file, secret }, value, [])]
  })
}

/** @throws {UsageError} for an alias that names nothing, or that would multiply the document */
function valueOf(document: Document, what: string, secret: boolean): unknown {
  try {
    return document.toJS() as unknown
  } catch (error) {
    if (!(error instanceof ReferenceError)) throw error
    throw new UsageError(secret ? `${what} (an alias in it cannot be resolved)` : `${what}: ${error.message}`)
  }
}

interface Source {
  readonly document: Document
  readonly lines: LineCounter
  readonly file: string
  readonly secret: boolean
}

function fieldOf(source: Source, value: unknown, path: Path): YamlField {
  const refuse = (reason: string): never => {
    const what = path.length === 0 ? 'the document' : pathText(path, source.secret)
    throw new UsageError(`${source.file}, line ${lineOf(source, path)}: ${what} ${reason}`)
  }
  return {
    value,
    at: (key) => fieldOf(source, childOf(value, key), [...path, key]),
    fail: (expected) => refuse(`must be ${expected}, got ${source.secret ? kindOf(value) : glimpse(value)}`),
    refuse,
  }
}

/** What a value is, without a word of it. */
function kindOf(value: unknown): string {
  if (typeof value === 'string') return 'a text'
  return typeof value === 'number' ? 'a number' : glimpse(value)
}

function childOf(value: unknown, key: string | number): unknown {
  if (Array.isArray(value)) return typeof key === 'number' ? (value[key] as unknown) : undefined
  return isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined
}

/** The line of the nearest thing that is there: of its key, where it has one. */
function lineOf({ document, lines }: Source, path: Path): number {
  for (let depth = path.length; depth >= 0; depth--) {
    const node = keyAt(document, path.slice(0, depth)) ?? nodeAt(document, path.slice(0, depth))
    if (isNode(node) && node.range) return lines.linePos(node.range[0]).line
  }
  return 1
}

function nodeAt(document: Document, path: Path): unknown {
  return path.length === 0 ? document.contents : document.getIn(path, true)
}

function keyAt(document: Document, path: Path): unknown {
  const parent = path.length === 0 ? undefined : nodeAt(document, path.slice(0, -1))
  if (!isMap(parent)) return undefined
  return parent.items.find(({ key }) => isScalar(key) && key.value === path.at(-1))?.key
}

/**
 * As people write it: spec.http[0].fault.
 * Where a secret may have slipped into the place of a name, names that look odd are not repeated.
 */
function pathText(path: Path, secret: boolean): string {
  const name = (key: string): string => (secret && !/^[\w.-]{1,40}$/.test(key) ? '?' : plainName(key))
  return path
    .map((key) => (typeof key === 'number' ? `[${key}]` : `.${name(key)}`))
    .join('')
    .replace(/^\./, '')
}

/** @throws {UsageError} when the field is no mapping, or has a key that is not in `allowed` */
export function checkKeys(field: YamlField, allowed: readonly string[]): void {
  for (const [key, child] of entriesOf(field)) {
    if (!allowed.includes(key)) child.fail(`absent (the keys here are ${allowed.join(', ')})`)
  }
}

export function entriesOf(field: YamlField): [string, YamlField][] {
  if (!isObject(field.value)) return field.fail('a mapping')
  return Object.keys(field.value).map((key) => [key, field.at(key)])
}

export function itemsOf(field: YamlField): YamlField[] {
  if (!Array.isArray(field.value)) return field.fail('a list')
  return field.value.map((_, i) => field.at(i))
}

/** The items of a list that may be left out. */
export function optionalItemsOf(field: YamlField): YamlField[] {
  return field.value === undefined ? [] : itemsOf(field)
}

export function textOf(field: YamlField): string {
  return typeof field.value === 'string' && field.value !== '' ? field.value : field.fail('a text')
}

/** A finite number in [`min`, `max`]. */
export function numberOf(field: YamlField, { min, max }: { readonly min: number; readonly max: number }): number {
  const { value } = field
  return typeof value === 'number' && value >= min && value <= max
    ? value
    : field.fail(`a number from ${min} to ${max}`)
}

/** A whole number in [`min`, `max`]. */
export function integerOf(field: YamlField, { min, max }: { readonly min: number; readonly max: number }): number {
  const { value } = field
  return typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max
    ? value
    : field.fail(`a whole number from ${min} to ${max}`)
}
