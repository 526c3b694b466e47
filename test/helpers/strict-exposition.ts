/*
 * A reader of Prometheus's text format, version 0.0.4, written from its description and not from what writes it here. It takes
 * less than Prometheus does: what it accepts, every reader does.
 */

export interface StrictSample {
  readonly name: string
  readonly labels: ReadonlyMap<string, string>
  readonly value: number
}

export interface StrictFamily {
  readonly name: string
  readonly type: string
  readonly samples: readonly StrictSample[]
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/
const LABEL = /^[a-zA-Z_][a-zA-Z0-9_]*$/
const VALUE = /^(?:[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]Inf|NaN|Nan)$/
const TYPES = ['counter', 'gauge', 'histogram', 'untyped']

/**
 * Families by name: each in one block, under one HELP and one TYPE, no series twice.
 *
 * @throws {Error} with the line at fault
 */
export function parseStrictly(bytes: Uint8Array): ReadonlyMap<string, StrictFamily> {
  const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  const families = new Map<string, { name: string; type: string; samples: StrictSample[] }>()
  const helped = new Set<string>()
  const series = new Set<string>()
  let current: { name: string; type: string; samples: StrictSample[] } | null = null
  if (text !== '' && !text.endsWith('\n')) throw new Error('the last line has no end')
  for (const line of text.split('\n')) {
    const wrong = (reason: string): Error => new Error(`${reason}: ${JSON.stringify(line.slice(0, 300))}`)
    if (line === '') continue
    if (line.startsWith('#')) {
      const [, keyword, name = '', rest = ''] = /^# (HELP|TYPE) (\S+) ?(.*)$/s.exec(line) ?? []
      if (keyword === undefined || !NAME.test(name)) throw wrong('a comment of no meaning')
      if (keyword === 'HELP') {
        if (helped.has(name)) throw wrong('a second HELP')
        if (/\\(?![\\n])/.test(rest.replaceAll('\\\\', ''))) throw wrong('an escape that is none')
        helped.add(name)
        current = null
      } else {
        if (families.has(name)) throw wrong('a second TYPE')
        if (!TYPES.includes(rest)) throw wrong('no type')
        current = { name, type: rest, samples: [] }
        families.set(name, current)
      }
      continue
    }
    const sample = parseSample(line, wrong)
    if (current === null || !belongs(sample.name, current)) throw wrong('a sample outside of its family')
    const key = JSON.stringify([sample.name, [...sample.labels].sort()])
    if (series.has(key)) throw wrong('a series given twice')
    series.add(key)
    if (sample.name === `${current.name}_bucket` && !VALUE.test(sample.labels.get('le') ?? '')) throw wrong('no bound')
    if (current.type === 'counter' && !(sample.value >= 0)) throw wrong('a counter below 0')
    current.samples.push(sample)
  }
  return families
}

function belongs(name: string, family: { readonly name: string; readonly type: string }): boolean {
  if (family.type !== 'histogram') return name === family.name
  return ['_bucket', '_sum', '_count'].some((suffix) => name === family.name + suffix)
}

function parseSample(line: string, wrong: (reason: string) => Error): StrictSample {
  const labels = new Map<string, string>()
  let at = line.search(/[^a-zA-Z0-9_:]/)
  const name = line.slice(0, at)
  if (at < 1 || !NAME.test(name)) throw wrong('no name')
  if (line[at] === '{') {
    at++
    while (line[at] !== '}') {
      const equals = line.indexOf('="', at)
      const label = line.slice(at, equals)
      if (equals < 0 || !LABEL.test(label)) throw wrong('no label')
      let value = ''
      at = equals + 2
      for (;;) {
        const mark = line[at++]
        if (mark === undefined) throw wrong('a label value without end')
        if (mark === '"') break
        if (mark !== '\\') {
          value += mark
          continue
        }
        const escape = line[at++]
        if (escape === 'n') value += '\n'
        else if (escape === '\\' || escape === '"') value += escape
        else throw wrong('an escape that is none')
      }
      if (labels.has(label)) throw wrong('a label given twice')
      labels.set(label, value)
      if (line[at] === ',') {
        at++
        if (line[at] === '}') throw wrong('a comma too many')
      } else if (line[at] !== '}') throw wrong('no comma')
    }
    if (labels.size === 0) throw wrong('no labels within the braces')
    at++
  }
  const value = line.slice(at + 1)
  if (line[at] !== ' ' || !VALUE.test(value)) throw wrong('no value')
  if (/\d/.test(value) && !Number.isFinite(Number(value))) throw wrong('a number beyond all')
  return { name, labels, value: numberOf(value) }
}

function numberOf(text: string): number {
  if (text.endsWith('Inf')) return text.startsWith('-') ? -Infinity : Infinity
  return Number(text) // NaN in either writing
}
