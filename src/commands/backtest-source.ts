import { type JudgedSample, judgedSample, pollsOf, stepSecondsOf } from '../core/backtest.js'
import { StartError, UsageError } from '../core/errors.js'
import { type GroundTruth, parseGroundTruth } from '../core/ground-truth.js'
import type { Poll } from '../core/incident.js'
import { type Pair, pairKey, pairName } from '../core/pair.js'
import { checkPromql, latencyAndTraffic } from '../core/promql.js'
import { pollsAsSeen, type RecordedRun, rescored, rescoredSample, verdictsByPair } from '../core/recorded-run.js'
import { type LatencySeries, readRecording, type Recording } from '../core/recording.js'
import { replay } from '../core/replay.js'
import type { ScoringRules, Watches } from '../core/score.js'
import { ShapeError } from '../core/series.js'
import { withAccess } from '../io/http-client.js'
import { fetchHistory } from '../io/range-history.js'
import { recordedPair } from '../io/recorded-pair.js'
import { readJson, readRunFolder, trainingFiles } from '../io/run-folder.js'
import type { Runtime } from '../io/runtime.js'
import { readRecordingFile, warnOfRepairs } from '../io/training-file.js'
import type { Values } from './flags.js'
import { anyText, httpUrl, intervalSeconds, numberAbove, optional, repeatable, timeFlag, withDefault } from './flags.js'
import { pairFlag, type PairFlag } from './incident.js'
import { UNLABELLED_QUANTILE } from './models.js'
import { pairFlags, scoringFlags } from './monitor.js'
import { prometheusAccess, prometheusFlags } from './prometheus-flags.js'

/** Where the history comes from, one way or another. */
export const sourceFlags = {
  run: optional(anyText, 'folder of a recorded run, as experiment run writes it'),
  'training-data-file': repeatable(anyText, "recording of a pair's normal traffic"),
  series: repeatable(anyText, 'recording to replay; the pair is the one that record wrote into the file, else --pair'),
  pair: repeatable(pairFlag, 'SOURCE:DESTINATION of each recording in order, with =N a threshold of its own'),
  'prometheus-url': optional(httpUrl, 'base URL of a Prometheus whose history is replayed'),
  'prometheus-http-config-file': prometheusFlags['prometheus-http-config-file'],
  from: optional(timeFlag, 'start of that history: unix seconds, RFC 3339, or before now such as -7d'),
  to: withDefault(timeFlag, 'now', 'end of that history'),
  'step-seconds': withDefault(intervalSeconds, '15', 'seconds between samples of that history'),
  'query-window': pairFlags['query-window'],
  'source-label': pairFlags['source-label'],
  'destination-label': pairFlags['destination-label'],
  quantile: scoringFlags.quantile,
  truth: optional(anyText, 'file of ground truth: faults and transients with their times'),
  'poll-interval-seconds': optional(
    intervalSeconds,
    "seconds between polls; unless given a run's own, else the step of the samples, and 30 at most",
  ),
  'stale-after-seconds': optional(
    numberAbove(0),
    'age of a sample from which it says nothing; just under one step unless given',
  ),
} as const

/** What is replayed, known to be there and to fit together. */
export interface Source {
  readonly pairs: readonly PairFlag[]
  /** One for each pair. */
  readonly trainings: readonly { readonly recording: Recording; readonly what: string }[]
  /** Those that are scored; empty: those that the training holds. */
  readonly quantiles: readonly number[]
  readonly truth: GroundTruth | null
  /** The live run that is replayed, if it is one. */
  readonly run: RecordedRun | null
  /** The rate window of the latencies. */
  readonly windowSeconds: number
  /** @throws {StartError} when Prometheus does not answer, or has nothing of a pair */
  readonly observe: (runtime: Runtime) => Promise<Observed>
}

/** The history itself. */
export interface Observed {
  /** @param pair - by its place */
  readonly judge: (pair: number, watches: Watches, rules: ScoringRules) => readonly JudgedSample[]
  /** @param samples - a list for each pair */
  readonly polls: (samples: readonly (readonly JudgedSample[])[]) => readonly Poll[]
  readonly pollIntervalSeconds: number
}

/** Of samples from longer apart, each is polled several times, as a daemon would. */
const MAX_POLL_INTERVAL_SECONDS = 30

/** A recording leaves out what Prometheus had nothing for: a sample holds until the next is due, and no longer. */
const OF_A_STEP = 0.999

/** Stale after this when a single sample has no step. */
const STALE_AFTER_SECONDS = 60

/** More would not fit into memory, and is a mistake: a year at 15 s. */
const MAX_POLLS = 2_200_000

type SourceValues = Values<typeof sourceFlags>

/** @throws {UsageError} for flags that do not go together, and for files that cannot be used */
export function sourceOf(values: SourceValues): Source {
  const { run, series, from } = values
  const url = values['prometheus-url']
  const ways = [
    ...(run === undefined ? [] : ['--run']),
    ...(series.length === 0 ? [] : ['--series']),
    ...(url === undefined && from === undefined ? [] : ['--prometheus-url with --from']),
  ]
  if (ways.length !== 1) {
    throw new UsageError(
      `give one thing to replay: --run FOLDER, --series FILE with --training-data-file FILE, or --prometheus-url URL with --from TIME; got ${ways.length === 0 ? 'none of them' : ways.join(' and ')}`,
    )
  }
  if (run !== undefined) return runSource(run, values)
  if (series.length > 0) return fileSource(series, values)
  if (url === undefined) throw new UsageError('--prometheus-url is required with --from: base URL of Prometheus')
  if (from === undefined) throw new UsageError('--from is required with --prometheus-url: a time such as -7d')
  return liveSource({ ...values, prometheusUrl: url, from })
}

function truthIn(path: string | undefined): GroundTruth | null {
  return path === undefined ? null : parseGroundTruth(readJson(path), `--truth: ${path}`)
}

function runSource(folder: string, values: SourceValues): Source {
  const own = ['training-data-file', 'pair', 'quantile', 'poll-interval-seconds', 'stale-after-seconds'] as const
  for (const flag of own) {
    if ([values[flag] ?? []].flat().length > 0) {
      throw new UsageError(`--${flag} cannot be given with --run, which has its own`)
    }
  }
  const run = readRunFolder(folder)
  const { pairs } = run.rules
  if (run.verdicts.length === 0)
    throw new UsageError(`--run: ${folder}: nothing was observed: verdicts.ndjson is empty`)
  const trainings = trainingFiles(folder, pairs).map((path) => ({
    recording: readRecordingFile(path, '--run'),
    what: `--run: ${path}`,
  }))
  const lines = verdictsByPair(run)
  return {
    pairs,
    trainings,
    quantiles: run.quantiles,
    truth: truthIn(values.truth) ?? run.truth,
    run,
    windowSeconds: run.queryWindowSeconds,
    observe: () =>
      Promise.resolve({
        judge: (pair, watches, rules) => rescored(lines[pair] ?? [], watches, rules).map(rescoredSample),
        polls: (samples) => pollsAsSeen(run, samples),
        pollIntervalSeconds: run.pollIntervalSeconds,
      }),
  }
}

interface NamedRecording {
  readonly path: string
  readonly pair: Pair
  readonly recording: Recording
}

function fileSource(paths: readonly string[], values: SourceValues): Source {
  const files = values['training-data-file']
  if (files.length !== paths.length) {
    throw new UsageError(
      `--training-data-file must be given once for each --series (${paths.length}), got it ${files.length} times`,
    )
  }
  const training = namedRecordings(files, values.pair, '--training-data-file')
  const observed = namedRecordings(paths, values.pair, '--series')
  const pairs = watchedPairs(training, values.pair)
  const recordings = pairs.map((pair) => {
    const found = observed.find((one) => pairKey(one.pair) === pairKey(pair))
    if (found === undefined) {
      const have = observed.map((one) => pairName(one.pair)).join(', ')
      throw new UsageError(`--series: none is of ${pairName(pair)}, which was trained; they are of ${have}`)
    }
    return found
  })
  const trainings = pairs.map((pair) => trainingOf(training, pair))
  recordings.forEach(({ recording, path }, i) => {
    const scored = values.quantile ?? quantilesIn(trainings[i]?.recording)
    const held = recording.series.map(({ quantile }) => quantile ?? scored[0])
    const lacking = scored.find((quantile) => !held.includes(quantile))
    if (lacking !== undefined) {
      throw new UsageError(`--series: ${path}: quantile ${lacking} is scored, but the file holds ${held.join(', ')}`)
    }
  })
  return {
    pairs,
    trainings,
    quantiles: values.quantile ?? [],
    truth: truthIn(values.truth),
    run: null,
    windowSeconds: values['query-window'].seconds,
    observe: ({ logger }) => {
      for (const { recording, path } of recordings) warnOfRepairs(logger, recording, path)
      return Promise.resolve(
        observedRecordings(
          recordings.map(({ recording }) => recording),
          values,
        ),
      )
    },
  }
}

function liveSource(values: SourceValues & { readonly prometheusUrl: string; readonly from: (now: number) => number }) {
  const { prometheusUrl } = values
  const stepSeconds = values['step-seconds']
  const stepMs = Math.round(1000 * stepSeconds)
  if (Math.abs(stepMs / 1000 - stepSeconds) > 1e-9) {
    throw new UsageError(`--step-seconds must be whole milliseconds, got ${stepSeconds}`)
  }
  const access = prometheusAccess({ ...values, 'prometheus-url': prometheusUrl })
  const files = values['training-data-file']
  if (files.length === 0) {
    throw new UsageError('--training-data-file is required with --prometheus-url, once for each pair')
  }
  const training = namedRecordings(files, values.pair, '--training-data-file')
  const pairs = watchedPairs(training, values.pair)
  const trainings = pairs.map((pair) => trainingOf(training, pair))
  const queries = pairs.map((pair, i) => {
    const query = latencyAndTraffic({
      pair,
      sourceLabel: values['source-label'],
      destinationLabel: values['destination-label'],
      reporter: 'source',
      window: values['query-window'].text,
      quantiles: values.quantile ?? quantilesIn(trainings[i]?.recording),
    })
    checkPromql(query, 'the query')
    return query
  })
  return {
    pairs,
    trainings,
    quantiles: values.quantile ?? [],
    truth: truthIn(values.truth),
    run: null,
    windowSeconds: values['query-window'].seconds,
    observe: async (runtime: Runtime): Promise<Observed> => {
      const nowSeconds = runtime.clock.nowMs() / 1000
      const onStep = (seconds: number): number => (Math.floor((1000 * seconds) / stepMs) * stepMs) / 1000
      const startSeconds = onStep(values.from(nowSeconds))
      const endSeconds = onStep(values.to(nowSeconds))
      if (!(startSeconds < endSeconds)) {
        throw new UsageError(
          `--from must be at least one step before --to, got ${(endSeconds - startSeconds).toFixed(0)} s`,
        )
      }
      const recordings: Recording[] = []
      for (const [i, query] of queries.entries()) {
        const name = pairName(pairs[i] ?? { source: '', destination: '' })
        const range = { prometheusUrl, query, startSeconds, endSeconds, stepSeconds }
        const answer = await fetchHistory(withAccess(runtime, access), range)
        if (answer.kind === 'failure') throw new StartError(`no history from ${prometheusUrl}: ${answer.detail}`)
        try {
          recordings.push(readRecording(answer.data))
        } catch (error) {
          if (!(error instanceof ShapeError)) throw error
          throw new StartError(`Prometheus has no latency of ${name} in this range`, { cause: error })
        }
        runtime.logger.info({ pair: name, samples: recordings.at(-1)?.series[0]?.timesSeconds.length }, 'history read')
      }
      return observedRecordings(recordings, values)
    },
  }
}

function quantilesIn(recording: Recording | undefined): readonly number[] {
  return (recording?.series ?? []).map(({ quantile }) => quantile ?? UNLABELLED_QUANTILE)
}

function trainingOf(training: readonly NamedRecording[], pair: Pair): Source['trainings'][number] {
  const found = training.find((one) => pairKey(one.pair) === pairKey(pair))
  if (found === undefined) throw new UsageError(`--training-data-file: none is of ${pairName(pair)}`)
  return { recording: found.recording, what: `--training-data-file: ${found.path}` }
}

/** Each file's pair: the one that it names, else the --pair in its place; a single file need not have one. */
function namedRecordings(
  paths: readonly string[],
  given: readonly PairFlag[],
  flag: string,
): readonly NamedRecording[] {
  const named = paths.map((path, i): NamedRecording => {
    const recording = readRecordingFile(path, flag)
    const pair = recordedPair(path) ?? given[i] ?? (paths.length === 1 ? ANY_PAIR : undefined)
    if (pair === undefined) {
      throw new UsageError(`${flag}: ${path} does not say of which pair it is: give --pair for each file, in order`)
    }
    return { path, pair: { source: pair.source, destination: pair.destination }, recording }
  })
  named.forEach(({ pair, path }, i) => {
    if (named.findIndex((other) => pairKey(other.pair) === pairKey(pair)) !== i) {
      throw new UsageError(`${flag}: ${path} is a second file of ${pairName(pair)}`)
    }
  })
  return named
}

/** What a single recording is of when nobody says. */
const ANY_PAIR: Pair = { source: 'source', destination: 'destination' }

/** The --pairs in their order, or else those of the training in its order. */
function watchedPairs(training: readonly NamedRecording[], given: readonly PairFlag[]): readonly PairFlag[] {
  if (given.length === 0) return training.map(({ pair }) => ({ ...pair, accumulatorThreshold: undefined }))
  const known = new Set(given.map(pairKey))
  const surplus = training.find(({ pair }) => !known.has(pairKey(pair)))
  if (surplus !== undefined) {
    throw new UsageError(`--training-data-file: ${surplus.path} is of ${pairName(surplus.pair)}, which no --pair names`)
  }
  return given
}

function observedRecordings(recordings: readonly Recording[], values: SourceValues): Observed {
  const steps = recordings.map(({ series }) => stepSecondsOf(series[0]?.timesSeconds ?? []))
  const shortest = Math.min(...steps.map((step) => step ?? MAX_POLL_INTERVAL_SECONDS))
  const pollIntervalSeconds = values['poll-interval-seconds'] ?? Math.min(shortest, MAX_POLL_INTERVAL_SECONDS)
  const staleAfterSeconds = steps.map(
    (step) => values['stale-after-seconds'] ?? (step === null ? STALE_AFTER_SECONDS : OF_A_STEP * step),
  )
  const times = recordings.flatMap(({ series }) => series.flatMap(({ timesSeconds: all }) => [all[0], all.at(-1)]))
  const ends = times.filter((time) => time !== undefined)
  const polls = (Math.max(...ends) - Math.min(...ends)) / pollIntervalSeconds
  if (polls > MAX_POLLS) {
    throw new UsageError(
      `expected at most ${MAX_POLLS} polls, got ${polls.toFixed(0)}: give a shorter range, or a longer --poll-interval-seconds`,
    )
  }
  return {
    judge: (pair, watches, rules) => {
      const recording = recordings[pair]
      if (recording === undefined) return []
      const only = watches[0]?.quantile
      const quantileOf = ({ quantile }: LatencySeries): number => quantile ?? only ?? UNLABELLED_QUANTILE
      return Array.from(replay({ watches, recording, rules, quantileOf }), judgedSample)
    },
    polls: (samples) => pollsOf(samples, { pollIntervalSeconds, staleAfterSeconds }),
    pollIntervalSeconds,
  }
}
