import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { StartError, UsageError } from '../core/errors.js'
import type { FaultWindow } from '../core/ground-truth.js'
import { pairName } from '../core/pair.js'
import type { ScoringRules } from '../core/score.js'
import type { Runtime } from '../io/runtime.js'
import { type Child, eventOf } from '../testbed/child-process.js'
import {
  type Daemons,
  evaluationsOf,
  isAnomalous,
  isStatus,
  isTransition,
  meshfeverStarter,
  newestStatus,
  startDaemons,
} from '../testbed/daemon-processes.js'
import { createNarrator } from '../testbed/narrator.js'
import { findPrometheus, type PrometheusServer, startPrometheus, writeTargets } from '../testbed/prometheus-server.js'
import type { Experiment, Fault } from './experiment-file.js'
import { createEffectWatch, type EffectWatch, promDuration } from './fault-effect.js'
import { createGuard, type Guard } from './guard.js'
import { type Happened, type Outcome, outcomeOf } from './outcome.js'
import { createRunRecord, type RunFacts, type RunRecord } from './run-record.js'
import { saveReport } from './run-report.js'
import { observedParts, type Part, QUANTILE, saveLatency, type Saving } from './saving.js'
import type { Stage, Target } from './target.js'
import { awaitTraffic, createPatience } from './traffic.js'

/** Daemons that start on a busy machine, and a load step without requests. */
const QUIET_PATIENCE_SECONDS = 90
/** For saving what there is after a stop or a failure: less than a command has for its stop. */
const SALVAGE_MS = 25_000
/** For what the stage was told last: undone before it is done, it would come back. */
const UNDER_WAY_MS = 10_000

export interface RunOptions {
  readonly experiment: Experiment
  /** The file as it was given. */
  readonly text: string
  /** By what its times were divided. */
  readonly compressedBy: number
  readonly folder: string
  readonly scoring: ScoringRules
  readonly sourceLabel: string
  readonly destinationLabel: string
  /**
   * @param folder - for its files, gone at the end
   * @param onLine - told of the lines that its processes write
   */
  readonly target: (folder: string, onLine: (process: string, line: string) => void) => Target
}

/** A run and all that belongs to it. What is null is not there yet. */
interface Run {
  readonly runtime: Runtime
  readonly options: RunOptions
  readonly experiment: Experiment
  readonly record: RunRecord
  readonly guard: Guard
  readonly say: (text: string) => Promise<void>
  /** For files that are gone at the end. */
  readonly work: string
  readonly startedSeconds: number
  stage: Stage | null
  prometheus: PrometheusServer | null
  saving: Saving | null
  effects: EffectWatch | null
  daemons: Daemons | null
  trainingFromSeconds: number | null
  trained: boolean
  observedFromSeconds: number | null
  /** When it came to its end, of either kind. */
  endedSeconds: number | null
  /** Faults that are in force, and since when, unix seconds. */
  readonly inForce: Map<Fault, number>
  /** Those that are over. */
  readonly faults: FaultWindow[]
  /** In the order in which they started. */
  readonly children: Child[]
  /** What the stage was told last. */
  doing: Promise<void>
}

/**
 * Runs an experiment and keeps what it measured in a folder: whole, or as far as it came when it ends before its end.
 *
 * @returns what came of it
 * @throws {UsageError} when the target cannot run it, or the folder has files in it; nothing is kept then
 * @throws {StartError} when something cannot be started, ended by itself, or the process is asked to stop
 */
export async function runExperiment(runtime: Runtime, options: RunOptions): Promise<Outcome> {
  const { experiment, folder } = options
  const run: Run = {
    runtime,
    options,
    experiment,
    record: createRunRecord(folder, experiment.pairs),
    guard: createGuard(runtime),
    say: createNarrator(runtime),
    work: temporaryFolder(),
    startedSeconds: runtime.clock.nowMs() / 1000,
    stage: null,
    prometheus: null,
    saving: null,
    effects: null,
    daemons: null,
    trainingFromSeconds: null,
    trained: false,
    observedFromSeconds: null,
    endedSeconds: null,
    inForce: new Map(),
    faults: [],
    children: [],
    doing: Promise.resolve(),
  }
  const trouble: Error[] = []
  try {
    run.record.begin(options.text)
    saveFacts(run, { partial: true })
    await perform(run)
  } catch (error) {
    trouble.push(error as Error)
  }
  const [refused] = trouble
  const { outcome, partial } = await finish(run, trouble)
  if (refused instanceof UsageError && run.stage === null) {
    run.record.discard()
    throw refused
  }
  const [failure] = trouble
  if (failure === undefined && outcome !== null) return outcome
  if (!(failure instanceof StartError || failure instanceof UsageError)) throw failure ?? new Error('no outcome')
  const kept = partial ? `what was recorded until then is in ${folder}, marked partial` : `the run is in ${folder}`
  throw new StartError(`${failure.message}; ${kept}`, { cause: failure })
}

function temporaryFolder(): string {
  try {
    return mkdtempSync(join(tmpdir(), 'meshfever-experiment-'))
  } catch (error) {
    throw new StartError(`cannot make a temporary folder: ${(error as Error).message}`, { cause: error })
  }
}

async function perform(run: Run): Promise<void> {
  const { say, experiment } = run
  const saving = await setUp(run)
  const effects = createEffectWatch(run.runtime, {
    source: saving.latency,
    windowSeconds: experiment.queryWindowSeconds,
  })
  run.saving = saving
  run.effects = effects
  saveFacts(run, { partial: true })
  const stage = run.stage
  if (stage === null) return
  await told(run, stage.applyLoad({ ...experiment.load, transients: [] }))
  await say('Waiting for requests of each pair.')
  await awaitTraffic(run.runtime, run.guard, {
    pairs: experiment.pairs,
    source: saving.latency,
    windowSeconds: experiment.queryWindowSeconds,
    scrapeIntervalSeconds: experiment.scrapeIntervalSeconds,
  })
  await train(run, saving, effects)
  run.daemons = await startWatching(run, saving)
  await awaitQuiet(run, run.daemons)
  await told(run, stage.applyLoad(experiment.load))
  await observe(run, { stage, effects })
  await awaitLastPoll(run, run.daemons)
}

function nowSeconds({ runtime }: Run): number {
  return runtime.clock.nowMs() / 1000
}

/** The stage does as it is told; what it was told last is waited for before anything is undone. */
function told(run: Run, doing: Promise<void>): Promise<void> {
  run.doing = doing
  return run.guard.unlessFailed(doing)
}

/** The application, its users, and a Prometheus of our own. */
async function setUp(run: Run): Promise<Saving> {
  const { runtime, options, experiment, record, guard, say, work } = run
  const { sourceLabel, destinationLabel } = options
  const binary = await findPrometheus(runtime)
  const keepLine = lineKeeper(run)
  await say([experiment.name, experiment.description].filter((text) => text !== '').join(': '))
  await say(`Starting ${applicationName(experiment)} on ${targetInWords(experiment)}.`)
  run.stage = await options.target(work, keepLine).start(experiment)
  run.stage.failed.catch((error: unknown) => guard.fail(error as Error))
  const { metrics } = run.stage
  const prometheus = await guard.unlessFailed(
    startPrometheus({
      binary,
      folder: join(work, 'prometheus'),
      scrapeIntervalSeconds: experiment.scrapeIntervalSeconds,
      jobs: [
        ...(metrics.kind === 'scrape' ? [{ name: 'istio-proxy', ...metrics }] : []),
        { name: 'meshfever', metricsPath: '/metrics', targetsFile: daemonTargets(run) },
      ],
      ownGroup: true,
      onLine: (line) => keepLine('prometheus', line),
      started: (child) => mustRun(run, child),
    }),
  )
  writeTargets(daemonTargets(run), [])
  run.prometheus = prometheus
  return {
    experiment,
    record,
    latency: {
      sourceLabel,
      destinationLabel,
      prometheusUrl: metrics.kind === 'scrape' ? prometheus.url : metrics.url,
    },
    gaugesUrl: prometheus.url,
  }
}

function mustRun({ children, guard }: Run, child: Child): void {
  children.push(child)
  guard.watch(child)
}

/** Prometheus's list of the daemons. */
function daemonTargets({ work }: Run): string {
  return join(work, 'daemons.json')
}

/** A line that cannot be kept ends the run. */
function lineKeeper({ record, guard }: Run): (process: string, line: string) => void {
  return (process, line) => {
    try {
      record.log(process, line)
    } catch (error) {
      guard.fail(error as Error)
    }
  }
}

async function train(run: Run, saving: Saving, effects: EffectWatch): Promise<void> {
  const { runtime, options, experiment, guard, say } = run
  await say(`Learning what is normal: ${seconds(experiment.trainingSeconds)} of traffic.`)
  const fromSeconds = nowSeconds(run)
  run.trainingFromSeconds = fromSeconds
  await guard.pause(experiment.trainingSeconds)
  for (const pair of experiment.pairs) {
    const span = { fromSeconds, toSeconds: nowSeconds(run) }
    const { summary } = await guard.unlessFailed(saveLatency(runtime, saving, { kind: 'training', pair, span }))
    // Of compressed time it is known that it is short.
    if (options.compressedBy === 1) await say(`  ${pairName(pair)}: ${summary}`)
  }
  await guard.unlessFailed(
    effects.learn(
      experiment.faults.flatMap(({ pairs }) => pairs),
      experiment.trainingSeconds,
    ),
  )
  run.trained = true
}

async function startWatching(run: Run, { record, latency, gaugesUrl }: Saving): Promise<Daemons> {
  const { runtime, options, experiment, guard, say } = run
  const { pairs, incident } = experiment
  const { scoring, sourceLabel, destinationLabel } = options
  const keepLine = lineKeeper(run)
  const labels = ['--source-label', sourceLabel, '--destination-label', destinationLabel]
  const logNames = new Map(pairs.map((pair) => [`monitor ${pairName(pair)}`, `monitor-${record.stemOf(pair)}`]))
  const daemons = await guard.unlessFailed(
    startDaemons(
      {
        start: meshfeverStarter(runtime.program, { ownGroup: true }),
        pairs: pairs.map((pair) => ({
          ...pair,
          trainingFile: record.pathOf('training', `${record.stemOf(pair)}.json`),
        })),
        latencyUrl: latency.prometheusUrl,
        gaugesUrl,
        queryWindow: promDuration(experiment.queryWindowSeconds),
        pollIntervalSeconds: experiment.pollIntervalSeconds,
        staleAfterSeconds: staleAfterSeconds(experiment),
        targetsFile: daemonTargets(run),
        monitorFlags: [
          ...['--model', experiment.model, '--quantile', String(QUANTILE), '--direction', scoring.direction],
          ...['--min-requests-per-second', String(scoring.minRequestsPerSecond)],
          ...['--min-deviation-ms', String(scoring.minDeviationMs)],
          ...['--min-deviation-ratio', String(scoring.minDeviationRatio)],
          ...(scoring.sloMs === null ? [] : ['--slo-ms', String(scoring.sloMs)]),
          ...labels,
        ],
        incidentFlags: [
          ...['--incident-threshold', String(incident.incidentThreshold)],
          ...['--clear-threshold', String(incident.clearThreshold)],
          ...['--accumulator-max', String(incident.accumulatorMax), '--cool-by', String(incident.coolBy)],
          ...['--no-data-timeout-seconds', String(incident.noDataTimeoutSeconds)],
          ...labels,
        ],
        onLine: (name, line) => {
          keepLine(logNames.get(name) ?? name, line)
          tellTransition(run, line)
        },
      },
      (child) => mustRun(run, child),
    ),
  )
  const monitors = pairs.length === 1 ? 'a monitor' : `${pairs.length} monitors`
  await say(`Started ${monitors} and the incident daemon.`)
  return daemons
}

/** A monitor's sample is as old as a poll and a scrape in the worst case; a busy machine gets twice that, or a few seconds. */
function staleAfterSeconds({ pollIntervalSeconds, scrapeIntervalSeconds }: Experiment): number {
  return Math.max(5, 2 * (pollIntervalSeconds + scrapeIntervalSeconds))
}

function tellTransition({ say, guard }: Run, line: string): void {
  const event = eventOf(line)
  if (event === undefined || !isTransition(event)) return
  const text: unknown = event['text']
  const [headline] = Array.isArray(text) ? (text as readonly unknown[]) : []
  const told = say(`  ${typeof headline === 'string' ? headline : `incident ${String(event['transition'])}`}`)
  told.catch((error: unknown) => guard.fail(error as Error))
}

/** Until each pair was ok once, and nothing is left of what came before. */
async function awaitQuiet(run: Run, { events }: Daemons): Promise<void> {
  const { experiment, guard } = run
  const patience = createPatience(run.runtime, QUIET_PATIENCE_SECONDS + 3 * experiment.load.stepSeconds)
  for (;;) {
    const waitedFor = experiment.pairs.filter(
      (pair) => !evaluationsOf(events, pair).some(({ verdict }) => verdict === 'ok'),
    )
    if (waitedFor.length === 0 && newestStatus(events)?.['temperature'] === 0) return
    const last = waitedFor.map((pair) => `${pairName(pair)} ${String(evaluationsOf(events, pair).at(-1)?.['verdict'])}`)
    patience.check(last.length === 0 ? 'the incident temperature stayed above 0' : `never ok: ${last.join(', ')}`)
    await guard.pause(Math.min(0.5, experiment.pollIntervalSeconds))
  }
}

/** Something that is due at a time of the observation. */
interface Due {
  readonly atSeconds: number
  readonly act: () => Promise<void>
}

async function observe(
  run: Run,
  { stage, effects }: { readonly stage: Stage; readonly effects: EffectWatch },
): Promise<void> {
  const { runtime, experiment, guard, say } = run
  const { observedSeconds, pollIntervalSeconds, faults } = experiment
  const startMs = runtime.clock.monotonicMs()
  const elapsed = (): number => (runtime.clock.monotonicMs() - startMs) / 1000
  run.observedFromSeconds = nowSeconds(run)
  saveFacts(run, { partial: true })
  await say(`Observing for ${seconds(observedSeconds)}.`)
  let looking: Promise<void> | undefined
  const look = async (): Promise<void> => {
    for (const [fault, fromSeconds] of run.inForce) await effects.look(fault, nowSeconds(run) - fromSeconds)
  }
  // Of two at one time the one that ends comes first: a host takes one VirtualService.
  const dues: readonly Due[] = [
    ...faults.map((fault) => ({ atSeconds: fault.toSeconds, act: () => removeFault(run, stage, fault) })),
    ...faults.map((fault) => ({ atSeconds: fault.fromSeconds, act: () => applyFault(run, stage, fault) })),
  ].sort((a, b) => a.atSeconds - b.atSeconds)
  for (const { atSeconds, act } of [...dues, { atSeconds: observedSeconds, act: () => Promise.resolve() }]) {
    while (elapsed() < atSeconds) {
      await guard.pause(Math.min(atSeconds - elapsed(), pollIntervalSeconds))
      // A slow answer must not hold up what is due.
      looking ??= look().finally(() => {
        looking = undefined
      })
    }
    await told(run, act())
  }
  await guard.unlessFailed(looking ?? Promise.resolve())
}

async function applyFault(run: Run, stage: Stage, fault: Fault): Promise<void> {
  // From here on it may be in force, and must be removed.
  run.inForce.set(fault, nowSeconds(run))
  await stage.applyFault(fault)
  run.inForce.set(fault, nowSeconds(run))
  await run.say(`The fault ${JSON.stringify(fault.name)} is in force.`)
}

async function removeFault(run: Run, stage: Stage, fault: Fault): Promise<void> {
  const fromSeconds = run.inForce.get(fault)
  if (fromSeconds === undefined) return
  await stage.removeFault(fault)
  run.inForce.delete(fault)
  run.faults.push({ name: fault.name, fromSeconds, toSeconds: nowSeconds(run), pairs: fault.pairs })
  await run.say(`The fault ${JSON.stringify(fault.name)} is removed.`)
}

/** The incident daemon is a little behind; that it does not come is no failure. */
async function awaitLastPoll(run: Run, { events }: Daemons): Promise<void> {
  const { runtime, experiment, guard } = run
  const { pollIntervalSeconds } = experiment
  const untilSeconds = endOfObservation(run) - pollIntervalSeconds
  const giveUpMs = runtime.clock.monotonicMs() + 10_000 + 3_000 * pollIntervalSeconds
  while (pollSeconds(newestStatus(events)) < untilSeconds && runtime.clock.monotonicMs() < giveUpMs) {
    await guard.pause(Math.min(0.2, pollIntervalSeconds))
  }
}

function pollSeconds(status: { readonly timestampSeconds?: unknown } | undefined): number {
  return typeof status?.timestampSeconds === 'number' ? status.timestampSeconds : -Infinity
}

/** Of what was observed, or of the time until now. */
function endedSeconds(run: Run): number {
  return Math.min(run.endedSeconds ?? nowSeconds(run), endOfObservation(run))
}

/** As planned. */
function endOfObservation({ observedFromSeconds, experiment }: Run): number {
  return (observedFromSeconds ?? Infinity) + experiment.observedSeconds
}

/**
 * Faults out, what there is saved, everything ended. Whatever of it fails costs nothing else.
 *
 * @param trouble - why the run ended before its end; what fails here is added to it
 */
async function finish(
  run: Run,
  trouble: Error[],
): Promise<{ readonly outcome: Outcome | null; readonly partial: boolean }> {
  const { runtime, guard, stage, say } = run
  const { clock, signal, logger } = runtime
  guard.release()
  run.endedSeconds = nowSeconds(run)
  const attempt = async (what: string, act: () => unknown): Promise<void> => {
    try {
      await act()
    } catch (error) {
      if (trouble.length > 0) logger.warn({ what, reason: (error as Error).message }, 'could not be done')
      trouble.push(error as Error)
    }
  }
  const quit = new AbortController()
  let asking = runtime
  const [failure] = trouble
  if (failure !== undefined) {
    const what = signal.aborted ? 'Stopped' : `Failed: ${failure.message}`
    await attempt('saying so', () => say(`${what}. Saving what there is.`))
    asking = { ...runtime, signal: quit.signal }
    void clock.sleep(SALVAGE_MS, quit.signal).then(() => quit.abort())
  }
  await Promise.race([Promise.allSettled([run.doing]), clock.sleep(UNDER_WAY_MS, quit.signal)])
  if (stage !== null) {
    for (const fault of [...run.inForce.keys()]) {
      await attempt(`removing the fault ${fault.name}`, () => removeFault(run, stage, fault))
    }
  }
  await Promise.all((run.daemons?.children ?? []).map((child) => child.stop()))
  for (const { what, save } of partsToSave(run, asking)) await attempt(`saving ${what}`, save)
  const isWhole = trouble.length === 0
  quit.abort()
  const outcome = run.observedFromSeconds === null ? null : outcomeOf(run.experiment.expected, happened(run))
  await attempt('saving what happened', () => saveHappened(run, outcome))
  await Promise.all([...run.children].reverse().map((child) => child.stop()))
  await attempt('cleaning up', () => stage?.close())
  await attempt('removing temporary files', () => rmSync(run.work, { recursive: true, force: true }))
  await attempt('saving what was run', () => saveFacts(run, { partial: !isWhole }))
  if (run.daemons !== null) {
    await attempt('writing the report', () =>
      saveReport(run.record.folder, { ...run.options, outcome, versions: versionsOf(run) }),
    )
  }
  return { outcome, partial: !isWhole }
}

/** What only Prometheus knows yet. Nothing without one that runs. */
function partsToSave(run: Run, asking: Runtime): readonly Part[] {
  const { experiment, saving, prometheus, trainingFromSeconds, observedFromSeconds, startedSeconds } = run
  if (saving === null || prometheus === null || prometheus.child.hasEnded()) return []
  const toSeconds = nowSeconds(run)
  if (observedFromSeconds !== null) {
    const observed = { fromSeconds: observedFromSeconds, toSeconds: endedSeconds(run) }
    return observedParts(asking, saving, { observed, startedSeconds })
  }
  if (run.trained || trainingFromSeconds === null) return []
  const span = { fromSeconds: trainingFromSeconds, toSeconds }
  return experiment.pairs.map((pair) => ({
    what: `the training data of ${pairName(pair)}`,
    save: () => saveLatency(asking, saving, { kind: 'training', pair, span }),
  }))
}

function saveHappened(run: Run, outcome: Outcome | null): void {
  const { experiment, record, observedFromSeconds } = run
  if (outcome === null || observedFromSeconds === null) return
  const transients = experiment.load.transients.map(({ fromSeconds, toSeconds, users }) => ({
    name: `+${Math.round(users * run.options.compressedBy)} users`,
    fromSeconds: observedFromSeconds + fromSeconds,
    toSeconds: observedFromSeconds + toSeconds,
  }))
  const begun = transients.filter(({ fromSeconds }) => fromSeconds < endedSeconds(run))
  record.groundTruth({ faults: run.faults, transients: begun })
  record.write(['outcome.json'], `${JSON.stringify(outcome, null, 2)}\n`)
}

/** Of the observed time. */
function happened({ daemons, faults, effects, observedFromSeconds }: Run): Happened {
  const observed = (daemons?.events ?? []).filter((event) => pollSeconds(event) >= (observedFromSeconds ?? Infinity))
  return {
    transitions: observed.filter(isTransition).map(
      // Our own daemon's own line.
      (event) => event as unknown as Happened['transitions'][number],
    ),
    anomalies: observed.filter(isAnomalous).length,
    faults:
      faults.length === 0
        ? null
        : {
            fromSeconds: Math.min(...faults.map(({ fromSeconds }) => fromSeconds)),
            toSeconds: Math.max(...faults.map(({ toSeconds }) => toSeconds)),
          },
    effects: effects?.effects() ?? [],
  }
}

function saveFacts(run: Run, { partial }: { readonly partial: boolean }): void {
  const { options, experiment, record, startedSeconds, observedFromSeconds } = run
  const polls = (run.daemons?.events ?? []).filter(isStatus).map(pollSeconds).filter(Number.isFinite)
  const [fromSeconds] = polls
  const toSeconds = polls.at(-1)
  const facts: RunFacts = {
    name: experiment.name,
    description: experiment.description,
    startedSeconds,
    observedFromSeconds: observedFromSeconds ?? startedSeconds,
    endedSeconds: endedSeconds(run),
    partial,
    seed: experiment.seed,
    target: targetName(experiment),
    application: applicationName(experiment),
    compressedBy: options.compressedBy,
    versions: versionsOf(run),
    pairs: experiment.pairs,
    quantiles: [QUANTILE],
    model: experiment.model,
    scoring: options.scoring,
    incident: experiment.incident,
    scrapeIntervalSeconds: experiment.scrapeIntervalSeconds,
    queryWindowSeconds: experiment.queryWindowSeconds,
    pollIntervalSeconds: experiment.pollIntervalSeconds,
    staleAfterSeconds: staleAfterSeconds(experiment),
    recordStepSeconds: experiment.recordStepSeconds,
    ...(fromSeconds === undefined || toSeconds === undefined ? {} : { incidentPolls: { fromSeconds, toSeconds } }),
  }
  record.facts(facts)
}

function versionsOf({ runtime: { program }, prometheus, stage }: Run): Readonly<Record<string, string>> {
  return {
    meshfever: program.version,
    node: program.nodeVersion,
    ...(prometheus === null ? {} : { prometheus: prometheus.version }),
    ...stage?.versions,
  }
}

/** In a sentence. */
function targetInWords(experiment: Experiment): string {
  return experiment.target.kind === 'testbed' ? 'the testbed of this machine' : targetName(experiment)
}

function targetName({ target }: Experiment): string {
  return target.kind === 'testbed' ? 'testbed' : `kubernetes context ${target.settings.context}`
}

/** Without the folder of a topology's file. */
function applicationName({ application }: Experiment): string {
  return application.split('/').at(-1) ?? application
}

function seconds(value: number): string {
  return `${Number(value.toFixed(1))} s`
}
