import type { Course, JudgedSample } from '../core/backtest.js'
import type { Measures } from '../core/detection-measures.js'
import type { GroundTruth } from '../core/ground-truth.js'
import type { IncidentRules } from '../core/incident.js'
import { pairName } from '../core/pair.js'
import { isoTime } from '../core/plain-text.js'
import type { Report, ReportedPair, Table, TradeOff } from './report.js'

/** One way to detect, and what it is worth. */
export interface MeasuredSetting {
  readonly name: string
  readonly measures: Measures
}

/** What is drawn is one setting's; the tables may tell of several. */
export interface ReportParts {
  readonly title: string
  readonly summary: readonly string[]
  readonly partial: boolean
  readonly rules: IncidentRules
  /** A list for each pair of the rules. */
  readonly samples: readonly (readonly JudgedSample[])[]
  readonly course: Course
  readonly truth: GroundTruth | null
  readonly tables: readonly Table[]
  readonly tradeOffs?: readonly TradeOff[]
  /** What was said of transitions when they happened, by their time. */
  readonly announced?: readonly { readonly timestampSeconds: number; readonly text: readonly string[] }[]
  /** The first and the last poll unless given. */
  readonly startSeconds?: number
  readonly endSeconds?: number
}

/** The quantile of a series that never had a sample. */
const MEDIAN = 0.5

export function reportOf(parts: ReportParts): Report {
  const { title, summary, partial, rules, samples, course, truth, tables, tradeOffs = [], announced = [] } = parts
  const texts = new Map(announced.map(({ timestampSeconds, text }) => [timestampSeconds, text]))
  const { startSeconds = course.polls[0]?.timestampSeconds ?? 0 } = parts
  const { endSeconds = course.polls.at(-1)?.timestampSeconds ?? startSeconds } = parts
  return {
    title,
    summary,
    partial,
    startSeconds,
    endSeconds,
    pairs: rules.pairs.map(({ source, destination, accumulatorThreshold }, i) =>
      reportedPair(samples[i] ?? [], { pair: { source, destination }, accumulatorThreshold }),
    ),
    polls: course.polls,
    transitions: course.transitions.map(({ timestampSeconds, transition, severity }) => ({
      timestampSeconds,
      transition,
      severity,
      text: texts.get(timestampSeconds) ?? [],
    })),
    groundTruth: truth ?? { faults: [], transients: [] },
    incidentThreshold: rules.incidentThreshold,
    clearThreshold: rules.clearThreshold,
    tables,
    tradeOffs,
  }
}

/** Of several scored quantiles the first is drawn. */
function reportedPair(
  samples: readonly JudgedSample[],
  about: Pick<ReportedPair, 'pair' | 'accumulatorThreshold'>,
): ReportedPair {
  const quantile = samples.find(({ quantiles }) => quantiles.length > 0)?.quantiles[0]?.quantile ?? MEDIAN
  return {
    ...about,
    quantile,
    points: samples.map(({ timestampSeconds, verdict, quantiles }) => {
      const scored = quantiles.find((candidate) => candidate.quantile === quantile)
      const { yMs = null, yhatMs = null, yMinMs = null, yMaxMs = null } = scored ?? {}
      return { timestampSeconds, yMs, yhatMs, yMinMs, yMaxMs, verdict }
    }),
  }
}

/**
 * What each setting is worth, and of the first one what came of each fault and each transient.
 *
 * @param settings - at least one
 */
export function measureTables(settings: readonly MeasuredSetting[]): readonly Table[] {
  const faults = settings[0]?.measures.faults ?? []
  const transients = settings[0]?.measures.transients ?? []
  return [
    {
      title: settings.length > 1 ? 'Trade-off' : 'Detection',
      columns: [
        'setting',
        'incidents',
        'incidents per week',
        'event recall, %',
        'to anomaly, s',
        'to Sev 2, s',
        'to Sev 1, s',
        'to resolve, s',
        'false anomalies per 1000 samples',
        'false incidents per day',
        'transients tolerated, %',
      ],
      rows: settings.map(({ name, measures }) => [
        name,
        measures.incidents,
        significant(measures.incidentsPerWeek),
        percent(measures.eventRecall),
        tenths(measures.toAnomalySeconds),
        tenths(measures.toSev2Seconds),
        tenths(measures.toSev1Seconds),
        tenths(measures.toResolvedSeconds),
        significant(measures.falseAnomaliesPerThousand),
        significant(measures.falseIncidentsPerDay),
        percent(measures.toleratedShare),
      ]),
      note:
        'Times are medians: from the start of a fault, and to resolve from its end. A dash: nothing to say it of' +
        (faults.length + transients.length === 0 ? ', such as no fault that is known.' : '.'),
    },
    ...(faults.length === 0
      ? []
      : [
          {
            title: 'Faults',
            columns: [
              'fault',
              'from',
              'pairs',
              'found',
              'to anomaly, s',
              'to Sev 2, s',
              'to Sev 1, s',
              'to resolve, s',
            ],
            rows: faults.map(({ fault, found, ...times }) => [
              fault.name,
              isoTime(fault.fromSeconds),
              fault.pairs.length === 0 ? 'all' : fault.pairs.map(pairName).join(', '),
              yesOrNo(found),
              tenths(times.toAnomalySeconds),
              tenths(times.toSev2Seconds),
              tenths(times.toSev1Seconds),
              tenths(times.toResolvedSeconds),
            ]),
            note: ofTheFirst(settings),
          },
        ]),
    ...(transients.length === 0
      ? []
      : [
          {
            title: 'Transients',
            columns: ['transient', 'from', 'anomalies', 'tolerated'],
            rows: transients.map(({ transient, tolerated, anomalies }) => [
              transient.name,
              isoTime(transient.fromSeconds),
              anomalies,
              yesOrNo(tolerated),
            ]),
            note: ofTheFirst(settings),
          },
        ]),
  ]
}

function ofTheFirst(settings: readonly MeasuredSetting[]): string {
  return settings.length > 1 ? `With the first setting, ${settings[0]?.name ?? ''}.` : ''
}

function yesOrNo(value: boolean | null): string | null {
  return value === null ? null : value ? 'yes' : 'no'
}

/** Three significant digits: a rate is known no better. */
function significant(value: number | null): number | null {
  return value === null ? null : Number(value.toPrecision(3))
}

function tenths(value: number | null): number | null {
  return value === null ? null : Number(value.toFixed(1))
}

function percent(share: number | null): number | null {
  return share === null ? null : tenths(100 * share)
}

/** A setting as a point: settings of one curve differ in one thing, which labels them. */
export interface TradeOffSetting extends MeasuredSetting {
  readonly curve: string
  readonly label: string
}

/** What is paid for what. A setting for which a value cannot be said is no point; without two points there is no curve. */
export function tradeOffsOf(settings: readonly TradeOffSetting[]): readonly TradeOff[] {
  const xTitle = 'false incidents per day'
  const against = (title: string, yTitle: string, value: (measures: Measures) => number | null): TradeOff => ({
    title,
    xTitle,
    yTitle,
    points: settings.flatMap(({ curve, label, measures }) => {
      const x = measures.falseIncidentsPerDay
      const y = value(measures)
      return x === null || y === null ? [] : [{ series: curve, label, x, y }]
    }),
  })
  return [
    against('False incidents against time to incident', 'median time to Sev 2, s', (one) => one.toSev2Seconds),
    against('False incidents against time to Sev 1', 'median time to Sev 1, s', (one) => one.toSev1Seconds),
    against('False incidents against recall', 'event recall, %', (one) => percent(one.eventRecall)),
  ].filter(({ points }) => points.length > 1)
}

/** A table for a terminal: numbers to the right, a dash for what is not known. */
export function tableText({ title, columns, rows, note }: Table): string {
  const cells = [columns, ...rows.map((row) => row.map((cell) => (cell === null ? '-' : String(cell))))]
  const widths = columns.map((_, i) => Math.max(...cells.map((row) => (row[i] ?? '').length)))
  const right = columns.map((_, i) => rows.every((row) => typeof row[i] !== 'string') && rows.length > 0)
  const line = (row: readonly string[]): string =>
    row
      .map((cell, i) => (right[i] === true ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
      .join('  ')
      .trimEnd()
  return `${[title, ...cells.map(line), ...(note === '' ? [] : [note])].join('\n')}\n`
}
