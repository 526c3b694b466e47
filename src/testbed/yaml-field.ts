import { isNode, LineCounter, parseAllDocuments, type Document } from 'yaml'

import { UsageError } from '../core/errors.js'
import { glimpse, isObject } from '../core/series.js'

/** One place in a YAML file: what stands there, and how to say that it is wrong. */
export interface YamlField {
  /** Undefined when the file has nothing there. */
  readonly value: unknown
  readonly at: (key: string | number) => YamlField
  /** Throws a UsageError that names the file, the line and the field, what was expected and what came. */
  readonly fail: (expected: string) => never
}

type Path = readonly (string | number)[]

/**
 * The documents of a YAML file; empty ones are left out.
 *
 * @throws {UsageError} naming the file and the line when the text is not YAML
 */
export function readYaml(text: string, file: string): YamlField[] {
  const lines = new LineCounter()
  const documents: Document[] = parseAllDocuments(text, { lineCounter: lines })
  return documents.flatMap((document) => {
    const [error] = document.errors
    if (error !== undefined) {
      const reason = error.message.split('\n', 1)[0] ?? ''
      throw new UsageError(`${file} must be YAML: ${reason.replace(/:$/, '')}`)
    }
    const value: unknown = document.toJS()
    return value === null || value === undefined ? [] : [fieldOf({ document, lines, file }, value, [])]
  })
}

interface Source {
  readonly document: Document
  readonly lines: LineCounter
  readonly file: string
}

function fieldOf(source: Source, value: unknown, path: Path): YamlField {
  return {
    value,
    at: (key) => fieldOf(source, childOf(value, key), [...path, key]),
    fail: (expected) => {
      const what = path.length === 0 ? 'the document' : pathText(path)
      const came = value === undefined ? 'nothing' : glimpse(value)
      throw new UsageError(`${source.file}, line ${lineOf(source, path)}: ${what} must be ${expected}, got ${came}`)
    },
  }
}

function childOf(value: unknown, key: string | number): unknown {
  if (Array.isArray(value)) return typeof key === 'number' ? (value[key] as unknown) : undefined
  return isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined
}

/** The line of the nearest thing that is there. */
function lineOf({ document, lines }: Source, path: Path): number {
  for (let depth = path.length; depth >= 0; depth--) {
    const node = depth === 0 ? document.contents : document.getIn(path.slice(0, depth), true)
    if (isNode(node) && node.range) return lines.linePos(node.range[0]).line
  }
  return 1
}

/** As people write it: spec.http[0].fault. */
function pathText(path: Path): string {
  return path
    .map((key) => (typeof key === 'number' ? `[${key}]` : `.${key}`))
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
