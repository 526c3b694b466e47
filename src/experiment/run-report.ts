import { measure } from '../core/detection-measures.js'
import { isoTime } from '../core/plain-text.js'
import { observedOf } from '../core/recorded-run.js'
import { writeReport } from '../io/report-files.js'
import { readRunFolder } from '../io/run-folder.js'
import type { Table } from '../report/report.js'
import type { Experiment } from './experiment-file.js'
import { type Outcome, outcomeTable } from './outcome.js'

/** What the folder does not tell. */
interface AboutRun {
  readonly experiment: Experiment
  /** Null when it was not observed. */
  readonly outcome: Outcome | null
  readonly compressedBy: number
  readonly versions: Readonly<Record<string, string>>
}

/** So long after its end an incident is still put down to a transient. */
const TRANSIENT_AFTER_WINDOWS = 5

/**
 * Makes the report of a run out of its folder, and writes it there.
 *
 * @throws {StartError} when it cannot be written
 */
export async function saveReport(folder: string, about: AboutRun): Promise<void> {
  const { experiment, outcome, compressedBy } = about
  // Loaded when they are wanted: the daemons need no plotting library in their memory.
  const [{ measureTables, reportOf }, { renderReport }] = await Promise.all([
    import('../report/assemble.js'),
    import('../report/render.js'),
  ])
  const run = readRunFolder(folder)
  const observed = observedOf(run)
  const { queryWindowSeconds, pollIntervalSeconds } = run
  const measures = measure({
    ...observed,
    pairs: run.rules.pairs,
    truth: run.truth,
    rules: {
      pollIntervalSeconds,
      tailSeconds: queryWindowSeconds,
      transientAfterSeconds: TRANSIENT_AFTER_WINDOWS * queryWindowSeconds,
    },
  })
  const report = reportOf({
    title: run.name,
    summary: summaryOf(experiment, { outcome, compressedBy, fromSeconds: run.observedFromSeconds }),
    partial: run.partial,
    rules: run.rules,
    ...observed,
    truth: run.truth,
    announced: run.transitions,
    startSeconds: run.observedFromSeconds,
    endSeconds: run.endedSeconds,
    tables: [
      ...(outcome === null ? [] : [outcomeTable(outcome)]),
      ...measureTables([{ name: run.model, measures }]),
      runTable(about),
    ],
  })
  writeReport(folder, await renderReport(report))
}

function summaryOf(
  { description, application, target }: Experiment,
  {
    outcome,
    compressedBy,
    fromSeconds,
  }: { readonly outcome: Outcome | null; readonly compressedBy: number; readonly fromSeconds: number },
): readonly string[] {
  const where = target.kind === 'testbed' ? 'the testbed' : `the cluster of ${target.settings.context}`
  return [
    ...(description === '' ? [] : [description]),
    `${application.split('/').at(-1) ?? ''} on ${where}, observed from ${isoTime(fromSeconds)}.`,
    ...(compressedBy === 1
      ? []
      : [`Every time of the experiment and every number of users was divided by ${compressedBy}.`]),
    ...(outcome === null ? [] : [outcomeTable(outcome).note]),
  ]
}

function runTable({ experiment, compressedBy, versions }: AboutRun): Table {
  const seconds = (value: number): string => `${Number(value.toPrecision(4))} s`
  return {
    title: 'How it was run',
    columns: ['what', 'value'],
    rows: [
      ['seed', String(experiment.seed)],
      ['model', experiment.model],
      ['compressed by', String(compressedBy)],
      ['training', seconds(experiment.trainingSeconds)],
      ['observation', seconds(experiment.observedSeconds)],
      ['scrape interval', seconds(experiment.scrapeIntervalSeconds)],
      ['rate window', seconds(experiment.queryWindowSeconds)],
      ['poll interval', seconds(experiment.pollIntervalSeconds)],
      ...Object.entries(versions).map(([name, version]) => [`version of ${name}`, version]),
    ],
    note: '',
  }
}
