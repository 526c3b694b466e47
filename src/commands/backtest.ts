import { setImmediate as breathe } from 'node:timers/promises'

import { type Course, courseOf, type JudgedSample } from '../core/backtest.js'
import { measure, type Measures, TRANSIENT_AFTER_WINDOWS } from '../core/detection-measures.js'
import { StartError } from '../core/errors.js'
import type { IncidentRules } from '../core/incident.js'
import { pairName } from '../core/pair.js'
import { isoTime } from '../core/plain-text.js'
import {
  type Agreement,
  observedOf,
  type RecordedRun,
  rescored,
  transitionAgreement,
  verdictAgreement,
  verdictsByPair,
} from '../core/recorded-run.js'
import { writeReport } from '../io/report-files.js'
import type { Runtime } from '../io/runtime.js'
import { measureTables, reportOf, tableText, tradeOffsOf } from '../report/assemble.js'
import { type ModelName, type Setting, settingFlags, settingsOf } from './backtest-settings.js'
import { type Observed, type Source, sourceFlags, sourceOf } from './backtest-source.js'
import { command } from './command.js'
import { anyText, numberFrom, optional, toggle, type Values } from './flags.js'
import { type Baselines, fitBaselines, watchesOf } from './models.js'

const flags = {
  ...sourceFlags,
  ...settingFlags,
  'tail-seconds': optional(
    numberFrom(0),
    'so long a fault or a transient still shows after its end; the rate window unless given',
  ),
  'transient-after-seconds': optional(
    numberFrom(0),
    'so long after its end an incident is still put down to a transient; five rate windows unless given',
  ),
  json: toggle('print one JSON object'),
  output: optional(anyText, 'folder for report.html, report.md, pictures and backtest.json'),
} as const

type BacktestValues = Values<typeof flags>

interface Outcome extends Setting {
  readonly measures: Measures
}

/** Of one setting, what a report draws. */
interface Drawn {
  readonly rules: IncidentRules
  readonly samples: readonly (readonly JudgedSample[])[]
  readonly course: Course
}

/** Baselines of each model, one for each pair. */
type Fitted = ReadonlyMap<ModelName, readonly Baselines[]>

/** What a replay of a live run says again. */
interface LiveAgreement {
  readonly verdicts: Agreement
  readonly transitions: Agreement
}

/** How many differences from a live run are listed. */
const MAX_LISTED = 20

export const backtestCommand = command({
  name: 'backtest',
  describe: 'Replays a recorded or live history through models and incident rules, and says what each is worth',
  flags,
  prepare: (values) => {
    const source = sourceOf(values)
    const { settings, contradictions } = settingsOf(values, source)
    const fits = [...new Set(settings.map(({ model }) => model))].map(
      (model) => [model, source.trainings.map((training) => fitOf(training, model, source.quantiles))] as const,
    )
    return {
      logTo: 'stderr',
      run: async (runtime) => {
        if (contradictions > 0) {
          runtime.logger.warn({ contradictions }, 'settings that contradict themselves are left out')
        }
        const observed = await source.observe(runtime)
        const fitted = new Map<ModelName, readonly Baselines[]>()
        for (const [model, fitting] of fits) {
          const baselines: Baselines[] = []
          for (const fit of fitting) baselines.push(await fit)
          fitted.set(model, baselines)
        }
        const live = source.run === null ? null : liveAgreement(source.run, fitted)
        const { outcomes, drawn } = await replaySettings(runtime, { values, source, settings, observed, fitted })
        await tell(runtime, { values, source, observed, outcomes, drawn, live })
        return live === null || allSame(live) ? 0 : 1
      },
    }
  },
})

function fitOf(
  { recording, what }: Source['trainings'][number],
  model: ModelName,
  quantiles: readonly number[],
): Baselines | Promise<Baselines> {
  return fitBaselines(recording, { model, quantiles, what })
}

/** Scores once for settings that score alike, and folds once for each. */
async function replaySettings(
  runtime: Runtime,
  {
    values,
    source,
    settings,
    observed,
    fitted,
  }: {
    readonly values: BacktestValues
    readonly source: Source
    readonly settings: readonly [Setting, ...Setting[]]
    readonly observed: Observed
    readonly fitted: Fitted
  },
): Promise<{ readonly outcomes: readonly Outcome[]; readonly drawn: Drawn }> {
  const measures = new Map<Setting, Measures>()
  const [first] = settings
  let drawn: Drawn = { rules: first.rules, samples: [], course: { polls: [], transitions: [] } }
  const { pollIntervalSeconds } = observed
  const rules = {
    pollIntervalSeconds,
    tailSeconds: values['tail-seconds'] ?? source.windowSeconds,
    transientAfterSeconds: values['transient-after-seconds'] ?? TRANSIENT_AFTER_WINDOWS * source.windowSeconds,
  }
  const groups = new Map<string, Setting[]>()
  for (const setting of settings) {
    const key = JSON.stringify([setting.model, setting.scoring])
    groups.set(key, [...(groups.get(key) ?? []), setting])
  }
  for (const alike of groups.values()) {
    const samples: (readonly JudgedSample[])[] = []
    for (const { model, scoring } of alike.slice(0, 1)) {
      for (const [pair, baselines] of (fitted.get(model) ?? []).entries()) {
        samples.push(observed.judge(pair, watchesOf(baselines), scoring))
        await stillWanted(runtime)
      }
    }
    const polls = observed.polls(samples)
    for (const setting of alike) {
      const course = courseOf(polls, setting.rules)
      const { pairs, truth } = source
      measures.set(setting, measure({ pairs, samples, polls, course, truth, rules }))
      if (setting === first) drawn = { rules: first.rules, samples, course }
      await stillWanted(runtime)
    }
  }
  return {
    outcomes: settings.flatMap((setting) => {
      const measured = measures.get(setting)
      return measured === undefined ? [] : [{ ...setting, measures: measured }]
    }),
    drawn,
  }
}

/** Lets a signal in, and everything else that waits. */
async function stillWanted({ signal }: Runtime): Promise<void> {
  await breathe()
  if (signal.aborted) throw new StartError('stopped before the backtest was over')
}

/** Says again what the daemons of a recorded run said, with their own settings. */
function liveAgreement(run: RecordedRun, fitted: Fitted): LiveAgreement {
  const baselines = [...fitted].find(([model]) => model === run.model)?.[1] ?? []
  const verdicts = verdictsByPair(run).map((lines, i) => {
    const fit = baselines[i]
    return verdictAgreement(fit === undefined ? [] : rescored(lines, watchesOf(fit), run.scoring))
  })
  return {
    verdicts: {
      same: verdicts.reduce((sum, { same }) => sum + same, 0),
      of: verdicts.reduce((sum, { of }) => sum + of, 0),
      differences: verdicts.flatMap(({ differences }) => differences),
    },
    transitions: transitionAgreement(run, observedOf(run).course),
  }
}

function allSame({ verdicts, transitions }: LiveAgreement): boolean {
  return verdicts.differences.length === 0 && transitions.differences.length === 0
}

function liveSentence({ verdicts, transitions }: LiveAgreement): string {
  return `${verdicts.same} of ${verdicts.of} verdicts and ${transitions.same} of ${transitions.of} transitions are the live ones`
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`
}

async function tell(
  runtime: Runtime,
  {
    values,
    source,
    observed,
    outcomes,
    drawn,
    live,
  }: {
    readonly values: BacktestValues
    readonly source: Source
    readonly observed: Observed
    readonly outcomes: readonly Outcome[]
    readonly drawn: Drawn
    readonly live: LiveAgreement | null
  },
): Promise<void> {
  const { truth, run, pairs } = source
  const { pollIntervalSeconds } = observed
  const { polls } = drawn.course
  const startSeconds = polls[0]?.timestampSeconds ?? null
  const endSeconds = polls.at(-1)?.timestampSeconds ?? null
  const document = {
    pairs: pairs.map(({ source: from, destination }) => ({ source: from, destination })),
    startSeconds,
    endSeconds,
    pollIntervalSeconds,
    settings: outcomes.map(({ name, model, scoring, rules, measures }) => ({ name, model, scoring, rules, measures })),
    live,
  }
  const samples = drawn.samples.reduce((sum, pair) => sum + pair.length, 0)
  const summary = [
    `${samples} samples of ${pairs.map(pairName).join(', ')} in ${polls.length} polls, one each ${pollIntervalSeconds} s` +
      (startSeconds === null || endSeconds === null ? '.' : `, ${isoTime(startSeconds)} to ${isoTime(endSeconds)}.`),
    truth === null
      ? 'Nothing is known of faults.'
      : `Known: ${counted(truth.faults.length, 'fault')} and ${counted(truth.transients.length, 'transient')}.`,
    ...(live === null ? [] : [`${liveSentence(live)}.`]),
  ]
  const tables = measureTables(outcomes)
  if (values.output !== undefined) {
    const report = reportOf({
      title: run === null ? 'Backtest' : `Backtest of ${run.name}`,
      summary,
      partial: run?.partial ?? false,
      ...drawn,
      truth,
      tables,
      tradeOffs: tradeOffsOf(outcomes),
      announced: run?.transitions ?? [],
    })
    // What draws is large, and most runs of the program draw nothing.
    const { renderReport } = await import('../report/render.js')
    const files = await renderReport(report)
    writeReport(values.output, { 'backtest.json': `${JSON.stringify(document, null, 2)}\n`, ...files })
  }
  const differences = live === null ? [] : [...live.verdicts.differences, ...live.transitions.differences]
  const more = differences.length - MAX_LISTED
  const text = [
    `${summary.join('\n')}\n`,
    ...tables.map(tableText),
    ...(differences.length === 0
      ? []
      : [
          `${['Not as live', ...differences.slice(0, MAX_LISTED), ...(more > 0 ? [`and ${more} more`] : [])].join('\n')}\n`,
        ]),
  ]
  await runtime.stdout.write(values.json ? `${JSON.stringify(document)}\n` : text.join('\n'))
}
