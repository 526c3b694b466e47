import { trainingOf } from '../core/baseline/model.js'
import { RecordingError, UsageError } from '../core/errors.js'
import { createBaselineStore } from '../core/mesh-baselines.js'
import { meshQuery, parseSelector } from '../core/mesh-query.js'
import { type MeshRecording, readMeshRecording } from '../core/mesh-recording.js'
import { pairName } from '../core/pair.js'
import { firstFew, plainName } from '../core/plain-text.js'
import type { Recording } from '../core/recording.js'
import type { ScoringRules } from '../core/score.js'
import { MAX_SHARDS, podOrdinal, type Shard, shardOf } from '../core/shard.js'
import { withAccess } from '../io/http-client.js'
import { createMeshMonitor } from '../io/mesh-monitor.js'
import { fitEdges, type Trainable } from '../io/mesh-training.js'
import type { Runtime } from '../io/runtime.js'
import { serveDaemon } from '../io/serve-daemon.js'
import { readMatrixFile } from '../io/training-file.js'
import type { Job } from './command.js'
import { webConfig } from './daemon-flags.js'
import { integerFrom, numberFrom, optional, toggle, withDefault } from './flags.js'
import { type Baselines, fitBaselines, MODELS, UNLABELLED_QUANTILE, watchesOf } from './models.js'
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
} as const

/** The monitor of a whole mesh. @throws {UsageError} when the flags are not for that */
export function meshJob(values: MonitorValues, rules: ScoringRules): Job {
  for (const name of ['service1', 'service2', 'query'] as const) {
    if (values[name] !== undefined) {
      throw new UsageError(`--${name} is not for --mesh, which finds its edges by --selector, got ${values[name]}`)
    }
  }
  const [sourceLabel, destinationLabel] = [values['source-label'], values['destination-label']]
  const training = trainingIn(values)
  const quantiles = values.quantile ?? training.quantiles
  const window = values['query-window']
  const query = meshQuery({
    selector: values.selector ?? null,
    sourceLabel,
    destinationLabel,
    window: window.text,
    quantiles,
  })
  const trainable = trainableEdges(training, { model: values.model, quantiles })
  const access = prometheusAccess(values)
  const web = webConfig(values)
  return {
    logFormat: values['log-format'],
    run: async (runtime) => {
      const { logger } = runtime
      const shard = shardIn(values.shard ?? { ordinal: 1, count: 1 }, runtime.program.environment)
      logger.info({ shard: `${shard.ordinal}/${shard.count}`, quantiles, query }, 'watching a mesh')
      warnOfTraining(logger, training, trainable)
      if (values.check) return 0
      const store = createBaselineStore()
      const own = trainable.edges.filter(({ pair }) => shardOf(pair, shard.count) === shard.ordinal)
      trainable.edges.length = 0
      void fitEdges(runtime, own, store)
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
        (registry) =>
          createMeshMonitor(
            {
              prometheusUrl: values['prometheus-url'],
              query,
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
            },
            withAccess(runtime, access),
            registry,
          ),
      )
    },
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
  {
    model: name,
    quantiles,
  }: { readonly model: (typeof MODELS)[number]['name']; readonly quantiles: readonly number[] },
): TrainableEdges {
  const model = MODELS.find((candidate) => candidate.name === name) ?? MODELS[0]
  const usable: Trainable[] = []
  const refused = [...unusable]
  for (const { pair, recording } of edges) {
    const what = pairName(pair)
    const wanted = quantilesIn(recording, quantiles)
    try {
      if (wanted.length === 0) throw new RecordingError(`${what}: none of the quantiles ${quantiles.join(', ')}`)
      for (const series of recording.series) trainingOf(series, model, what)
    } catch (error) {
      if (!(error instanceof RecordingError)) throw error
      refused.push({ pair, reason: error.message })
      continue
    }
    usable.push({
      pair,
      fit: () => {
        const fitting = fitBaselines(recording, { model: name, quantiles: wanted, what })
        return fitting instanceof Promise ? fitting.then((fitted: Baselines) => watchesOf(fitted)) : watchesOf(fitting)
      },
    })
  }
  if (file !== null && usable.length === 0) {
    throw new RecordingError(
      `--training-data-file: ${file}: no edge can be trained: ${refused[0]?.reason ?? 'it holds none'}`,
    )
  }
  return { edges: usable, unusable: refused }
}

function quantilesIn({ series }: Recording, quantiles: readonly number[]): readonly number[] {
  const unlabelled = quantiles.length === 1 ? quantiles[0] : UNLABELLED_QUANTILE
  const held = series.map(({ quantile }) => quantile ?? unlabelled)
  return quantiles.filter((quantile) => held.includes(quantile))
}

function warnOfTraining(logger: Runtime['logger'], training: MeshTraining, { edges, unusable }: TrainableEdges): void {
  const { file, reordered } = training
  if (file === null) {
    logger.warn('without --training-data-file no edge has a baseline, and the verdict of each stays warming')
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
