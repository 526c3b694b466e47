import { trainingOf } from '../core/baseline/model.js'
import { RecordingError, UsageError } from '../core/errors.js'
import { createBaselineStore } from '../core/mesh-baselines.js'
import {
  batchMatchers,
  type MeshQuery,
  meshQuery,
  meshTrainingQuery,
  narrowedQuery,
  parseSelector,
} from '../core/mesh-query.js'
import { type MeshRecording, readMeshRecording } from '../core/mesh-recording.js'
import { pairName } from '../core/pair.js'
import { firstFew, plainName } from '../core/plain-text.js'
import { checkPromql } from '../core/promql.js'
import type { Recording } from '../core/recording.js'
import type { ScoringRules } from '../core/score.js'
import { MAX_SHARDS, podOrdinal, type Shard, shardOf } from '../core/shard.js'
import { createBaselineGauges, createTrainingGauges } from '../io/gauges.js'
import { withAccess } from '../io/http-client.js'
import { createMeshMonitor } from '../io/mesh-monitor.js'
import { createMeshTrainer, type MeshTrainerConfig } from '../io/mesh-trainer.js'
import { fitEdges, type Trainable } from '../io/mesh-training.js'
import { modelNamed } from '../io/models.js'
import type { Runtime } from '../io/runtime.js'
import { serveDaemon } from '../io/serve-daemon.js'
import { readMatrixFile } from '../io/training-file.js'
import type { Job } from './command.js'
import { webConfig } from './daemon-flags.js'
import { duration, integerFrom, numberFrom, optional, type PromDuration, toggle, withDefault } from './flags.js'
import { UNLABELLED_QUANTILE } from './models.js'
import type { MonitorValues } from './monitor.js'
import { prometheusAccess } from './prometheus-flags.js'

/** `2/5`; `auto/5` takes the ordinal from the name of the StatefulSet's pod. */
interface ShardFlag {
  readonly ordinal: number | 'auto'
  readonly count: number
}

function shardFlag(text: string, name: string): ShardFlag {
  const [, ordinalText = '', countText] = /^(\d{1,6}|auto)\/(\d{1,6})$/.exec(text) ?? []
  const count = Number(countText)
  if (!(count >= 1 && count <= MAX_SHARDS)) {
    throw new UsageError(
      `${name} must be ORDINAL/SHARDS such as 2/5, or auto/5 in a StatefulSet, with 1 to ${MAX_SHARDS} shards, got ${JSON.stringify(text)}`,
    )
  }
  if (ordinalText === 'auto') return { ordinal: 'auto', count }
  const ordinal = Number(ordinalText)
  if (!(ordinal >= 1 && ordinal <= count)) {
    throw new UsageError(`${name} must be from 1/${count} to ${count}/${count}, got ${JSON.stringify(text)}`)
  }
  return { ordinal, count }
}

const POD_NAME = 'POD_NAME'

/** @throws {UsageError} when the pod's name does not say which shard it is */
export function shardIn({ ordinal, count }: ShardFlag, environment: Runtime['program']['environment']): Shard {
  if (ordinal !== 'auto') return { ordinal, count }
  const expected = `--shard auto/${count} needs the variable ${POD_NAME} with the name of a StatefulSet's pod, which ends in -0 to -${count - 1}`
  const podName = environment[POD_NAME]
  if (podName === undefined) throw new UsageError(`${expected}, but it is not set`)
  const index = podOrdinal(podName)
  if (index === null || index >= count) throw new UsageError(`${expected}, got ${JSON.stringify(podName)}`)
  return { ordinal: index + 1, count }
}

/** A duration, or 0 or off, which are null. */
function durationOrOff(text: string, name: string): PromDuration | null {
  if (text === 'off' || text === '0') return null
  try {
    return duration(text, name)
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    throw new UsageError(`${name} must be a Prometheus duration such as 24h, or 0 or off, got ${JSON.stringify(text)}`)
  }
}

/** What a baseline is fitted on at most: half a year at steps of five minutes. */
const MAX_TRAINING_SAMPLES = 50_000

/** How --train-from trains. Without a default text, so that it is seen when they are given for nothing. */
const historyFlags = {
  'train-step': optional(duration, 'with --train-from: time between two samples of the history; 60s unless given'),
  'retrain-interval': optional(
    durationOrOff,
    'with --train-from: how old a baseline becomes before it is made anew, unless its edge is anomalous; 0 or off for never, 24h unless given',
  ),
  'train-concurrency': optional(
    integerFrom(1, 8),
    'with --train-from: how many range queries Prometheus is asked at once; 2 unless given',
  ),
} as const

export const meshFlags = {
  mesh: toggle('watch every edge that --selector matches, instead of one pair'),
  selector: optional(
    parseSelector,
    'with --mesh: which of Istio\'s series, as label matchers such as destination_service_namespace="boutique"; all unless given',
  ),
  'max-edges': withDefault(
    integerFrom(1, 1_000_000),
    '5000',
    'with --mesh: how many edges are watched at most; those found beyond it are counted',
  ),
  'edge-grace-seconds': withDefault(
    numberFrom(0),
    '900',
    'with --mesh: how long an edge that is gone stays, as no_data, before its series are removed',
  ),
  shard: optional(
    shardFlag,
    `with --mesh: which of several monitors this is, from 1/5 to 5/5; auto/5 takes it from the ordinal at the end of $${POD_NAME}`,
  ),
  'train-from': optional(
    duration,
    "with --mesh, in place of --training-data-file: how much of Prometheus's own history the baselines are trained on, such as 7d; times in which an edge was hot are left out, and new edges are trained soon after they are seen",
  ),
  ...historyFlags,
} as const

/** The flags that mean nothing to the monitor of a pair, and have no default. */
export const MESH_ONLY = [
  'selector',
  'shard',
  'train-from',
  ...(Object.keys(historyFlags) as (keyof typeof historyFlags)[]),
] as const

/** The monitor of a whole mesh. @throws {UsageError} when the flags are not for that */
export function meshJob(values: MonitorValues, rules: ScoringRules): Job {
  for (const name of ['service1', 'service2'] as const) {
    if (values[name] !== undefined) {
      throw new UsageError(`--${name} is not for --mesh, which finds its edges by --selector, got ${values[name]}`)
    }
  }
  if (values.query !== undefined) {
    if (values.selector !== undefined) {
      throw new UsageError(`--selector narrows the built-in query, and --query is given, got ${values.selector.text}`)
    }
    checkPromql(values.query, '--query')
  }
  const [sourceLabel, destinationLabel] = [values['source-label'], values['destination-label']]
  if (values['train-from'] !== undefined && values['training-data-file'] !== undefined) {
    throw new UsageError('--train-from and --training-data-file must not be given together: each says what is normal')
  }
  const training = trainingIn(values)
  const quantiles = values.quantile ?? training.quantiles
  const window = values['query-window']
  const mesh: MeshQuery = {
    selector: values.selector ?? null,
    sourceLabel,
    destinationLabel,
    window: window.text,
    quantiles,
  }
  const builtIn = meshQuery(mesh)
  const query = values.query ?? builtIn
  const history = historyIn(values, mesh)
  const trainable = trainableEdges(training, { model: values.model, quantiles })
  const access = prometheusAccess(values)
  const web = webConfig(values)
  return {
    logFormat: values['log-format'],
    run: async (runtime) => {
      const { logger } = runtime
      const shard = shardIn(values.shard ?? { ordinal: 1, count: 1 }, runtime.program.environment)
      logger.info({ shard: `${shard.ordinal}/${shard.count}`, quantiles, query }, 'watching a mesh')
      if (history === null) warnOfTraining(logger, training, trainable)
      else {
        const { rangeSeconds, stepSeconds, retrainSeconds, concurrency } = history
        logger.info(
          { rangeSeconds, stepSeconds, retrainSeconds, concurrency },
          'edges are trained from the history in Prometheus as they are seen, and stay warming until then',
        )
      }
      if (values.check) return 0
      const store = createBaselineStore()
      const own = trainable.edges.filter(({ pair }) => shardOf(pair, shard.count) === shard.ordinal)
      trainable.edges.length = 0
      if (history === null) void fitEdges(runtime, own, { store, model: values.model })
      const pollIntervalMs = values['poll-interval-seconds'] * 1000
      return serveDaemon(
        runtime,
        {
          command: 'monitor',
          listenAddress: values['listen-address'],
          port: values['prometheus-port'],
          pollIntervalMs,
          web,
        },
        (registry) => {
          const asking = withAccess(runtime, access)
          const trainer =
            history === null ? null : createMeshTrainer(history, asking, store, createTrainingGauges(registry))
          const gauges = createBaselineGauges(registry)
          return createMeshMonitor(
            {
              prometheusUrl: values['prometheus-url'],
              query,
              ownQuery: values.query !== undefined,
              sourceLabel,
              destinationLabel,
              quantiles,
              baselines: store,
              rules,
              pollIntervalMs,
              // As for a pair: a sidecar that died drops out of the window bit by bit.
              maxAgeSeconds: 0.75 * window.seconds,
              maxEdges: values['max-edges'],
              edgeGraceSeconds: values['edge-grace-seconds'],
              shard,
              onScored: (edges) => {
                trainer?.scored(edges)
                gauges.publish(store.summary())
              },
            },
            asking,
            registry,
          )
        },
      )
    },
  }
}

/**
 * How the mesh is trained from Prometheus's history; null when that was not asked for.
 *
 * @throws {UsageError} when what was asked for contradicts itself
 */
function historyIn(values: MonitorValues, mesh: MeshQuery): MeshTrainerConfig | null {
  const range = values['train-from']
  if (range === undefined) {
    for (const name of Object.keys(historyFlags) as (keyof typeof historyFlags)[]) {
      if (values[name] !== undefined) throw new UsageError(`--${name} is for --train-from, which is not given`)
    }
    return null
  }
  const stepSeconds = values['train-step']?.seconds ?? 60
  const { minSamples } = modelNamed(values.model)
  const samples = Math.floor(range.seconds / stepSeconds) + 1
  if (!(samples >= minSamples && samples <= MAX_TRAINING_SAMPLES)) {
    throw new UsageError(
      `--train-from over --train-step must be ${minSamples} to ${MAX_TRAINING_SAMPLES} samples, got ${samples} (${range.text} at steps of ${stepSeconds} s)`,
    )
  }
  const [retrain, own] = [values['retrain-interval'], values.query]
  return {
    prometheusUrl: values['prometheus-url'],
    mesh,
    queryOf: (batch) =>
      own === undefined ? meshTrainingQuery(mesh, batch) : narrowedQuery(own, batchMatchers(batch, mesh)),
    windowSeconds: values['query-window'].seconds,
    model: values.model,
    rangeSeconds: range.seconds,
    stepSeconds,
    retrainSeconds: retrain === undefined ? 86_400 : (retrain?.seconds ?? null),
    concurrency: values['train-concurrency'] ?? 2,
  }
}

interface MeshTraining extends MeshRecording {
  /** Null without a file. */
  readonly file: string | null
  /** That the file holds, or the one that is scored without a file. */
  readonly quantiles: readonly number[]
}

function trainingIn(values: MonitorValues): MeshTraining {
  const file = values['training-data-file']
  if (file === undefined) return { file: null, edges: [], unusable: [], reordered: 0, quantiles: [UNLABELLED_QUANTILE] }
  const labels = { sourceLabel: values['source-label'], destinationLabel: values['destination-label'] }
  const recording = readMatrixFile(file, '--training-data-file', (matrix) => readMeshRecording(matrix, labels))
  const held = recording.edges.flatMap(({ recording: { series } }) =>
    series.map(({ quantile }) => quantile ?? UNLABELLED_QUANTILE),
  )
  return { ...recording, file, quantiles: [...new Set(held)].sort((a, b) => a - b) }
}

interface TrainableEdges {
  readonly edges: Trainable[]
  readonly unusable: MeshRecording['unusable']
}

/**
 * The edges that can be trained, with what it takes. An edge that cannot is `warming`, and no reason to end.
 *
 * @throws {RecordingError} when no edge of the file can be trained
 */
function trainableEdges(
  { file, edges, unusable }: MeshTraining,
  { model: name, quantiles }: { readonly model: string; readonly quantiles: readonly number[] },
): TrainableEdges {
  const model = modelNamed(name)
  const usable: Trainable[] = []
  const refused = [...unusable]
  for (const { pair, recording } of edges) {
    const what = pairName(pair)
    try {
      const trainings = quantiles.flatMap((quantile) => {
        const series = seriesOf(recording, quantile, quantiles)
        return series === undefined ? [] : [[quantile, trainingOf(series, model, what)] as const]
      })
      if (trainings.length === 0) throw new RecordingError(`${what}: none of the quantiles ${quantiles.join(', ')}`)
      const samples = Math.min(...trainings.map(([, { timesSeconds }]) => timesSeconds.length))
      usable.push({ pair, trainings, samples })
    } catch (error) {
      if (!(error instanceof RecordingError)) throw error
      refused.push({ pair, reason: error.message })
    }
  }
  if (file !== null && usable.length === 0) {
    throw new RecordingError(
      `--training-data-file: ${file}: no edge can be trained: ${refused[0]?.reason ?? 'it holds none'}`,
    )
  }
  return { edges: usable, unusable: refused }
}

/** @param quantiles - those that are scored: a series that does not say is of the only one */
function seriesOf(
  { series }: Recording,
  wanted: number,
  quantiles: readonly number[],
): Recording['series'][number] | undefined {
  const unlabelled = quantiles.length === 1 ? quantiles[0] : UNLABELLED_QUANTILE
  return series.find(({ quantile }) => (quantile ?? unlabelled) === wanted)
}

function warnOfTraining(logger: Runtime['logger'], training: MeshTraining, { edges, unusable }: TrainableEdges): void {
  const { file, reordered } = training
  if (file === null) {
    logger.warn(
      'without --train-from or --training-data-file no edge has a baseline, and the verdict of each stays warming',
    )
    return
  }
  const rejected = training.edges.reduce((sum, { recording }) => sum + recording.rejected, 0)
  logger.info({ trainingDataFile: file, edges: edges.length, unusable: unusable.length }, 'training data read')
  if (unusable.length > 0) {
    const reasons = firstFew(
      unusable.map(({ reason }) => plainName(reason)),
      5,
      '; ',
    )
    logger.warn({ edges: unusable.length, reasons }, 'edges that cannot be trained stay warming')
  }
  if (reordered > 0) logger.warn({ file, reordered }, 'samples out of order or double were put right')
  if (rejected > 0) logger.warn({ file, rejected }, 'values that no latency can have were read as missing')
}
