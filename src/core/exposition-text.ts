/*
 * The monitor's families of many edges in Prometheus's text format. prom-client keeps an object for each series and hashes and
 * escapes its labels at every change; here an edge's lines are written as it is scored, and nothing of them is kept.
 */
import { PAIR_GAUGES, pairValues, QUANTILE_GAUGES, quantileValues } from './gauge-values.js'
import { type Metric, MONITOR_COUNTERS, MONITOR_GAUGES } from './metric-names.js'
import type { Pair } from './pair.js'
import { type Evaluation, VERDICTS } from './score.js'

const METRICS = { ...MONITOR_GAUGES, ...MONITOR_COUNTERS }
type Family = keyof typeof METRICS

/** In the order in which they are written. */
const FAMILIES = Object.keys(METRICS) as readonly Family[]

/** What stands before the samples of each family, in the order of the texts that `take` gives. */
export const EDGE_FAMILY_HEADS: readonly string[] = FAMILIES.map((key) => {
  const { name, help, type }: Metric = METRICS[key]
  return `# HELP ${name} ${escaped(help)}\n# TYPE ${name} ${type}\n`
})

export interface EdgeText {
  /** @param anomalies - found so far */
  add(edge: Pair, evaluation: Evaluation, anomalies: number): void
  /** Hands over what was added since the last time, a text for each family. */
  take(): readonly Uint8Array[]
}

/** The labels of an edge, as they stand between the braces. */
export function edgeLabels({ source, destination }: Pair): string {
  return `source="${quoted(source)}",destination="${quoted(destination)}"`
}

/** Written byte by byte: strings put together from pieces would be most of what a poll leaves to the garbage collector. */
export function createEdgeText(quantiles: readonly number[]): EdgeText {
  const texts = Object.fromEntries(FAMILIES.map((key) => [key, createText(METRICS[key].name)])) as Record<Family, Text>
  let room = new Uint8Array(2 ** 10)
  const end = encoder.encode('} ')
  const labelled = quantiles.map((quantile) => ({ quantile, end: encoder.encode(`,quantile="${quantile}"} `) }))
  const verdicts = VERDICTS.map((verdict) => ({ verdict, end: encoder.encode(`,verdict="${verdict}"} `) }))
  return {
    add: (edge, evaluation, anomalies) => {
      const labelText = edgeLabels(edge)
      // No character of a string takes more than three bytes.
      if (3 * labelText.length > room.length) room = new Uint8Array(6 * labelText.length)
      const labels = room.subarray(0, encoder.encodeInto(labelText, room).written)
      const values = pairValues(evaluation)
      for (const key of PAIR_GAUGES) {
        const value = values[key]
        if (isKnown(value)) texts[key].add(labels, end, value)
      }
      for (const { quantile, end: quantileEnd } of labelled) {
        const scored = quantileValues(evaluation, quantile)
        for (const key of QUANTILE_GAUGES) {
          const value = scored[key]
          if (isKnown(value)) texts[key].add(labels, quantileEnd, value)
        }
      }
      for (const { verdict, end: verdictEnd } of verdicts) {
        texts.verdict.add(labels, verdictEnd, verdict === evaluation.verdict ? 1 : 0)
      }
      texts.anomalies.add(labels, end, anomalies)
    },
    take: () => FAMILIES.map((key) => texts[key].take()),
  }
}

const encoder = new TextEncoder()

/** The lines of one family. */
interface Text {
  /** @param end - what stands between the labels and the value */
  add(labels: Uint8Array, end: Uint8Array, value: number): void
  take(): Uint8Array
}

/** The longest text of a number has 24 characters: -1.2345678901234567e-100. */
const LONGEST_NUMBER = 32

function createText(name: string): Text {
  const start = encoder.encode(`${name}{`)
  let bytes = new Uint8Array(2 ** 12)
  let length = 0
  return {
    add: (labels, end, value) => {
      const needed = length + start.length + labels.length + end.length + LONGEST_NUMBER
      if (needed > bytes.length) {
        const larger = new Uint8Array(2 * needed)
        larger.set(bytes.subarray(0, length))
        bytes = larger
      }
      bytes.set(start, length)
      bytes.set(labels, length + start.length)
      bytes.set(end, length + start.length + labels.length)
      length += start.length + labels.length + end.length
      const digits = String(value)
      for (let i = 0; i < digits.length; i++) bytes[length++] = digits.charCodeAt(i)
      bytes[length++] = NEWLINE
    },
    take: () => {
      const taken = bytes.slice(0, length)
      length = 0
      return taken
    },
  }
}

const NEWLINE = 10

/** As prom-client is asked: what is no number has no series. */
function isKnown(value: number | null): value is number {
  return value !== null && Number.isFinite(value)
}

function escaped(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')
}

function quoted(text: string): string {
  if (!/["\\\n]/.test(text)) return text
  return escaped(text).replaceAll('"', '\\"')
}
