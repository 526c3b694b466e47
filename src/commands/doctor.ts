import { readFileSync } from 'node:fs'

import { quantileSorted } from 'simple-statistics'

import { diagnose, exitCodeOf, type Finding, printable, type Subject, type TrainingFacts } from '../core/diagnosis.js'
import { StartError, UsageError } from '../core/errors.js'
import { bucketOf } from '../core/istio-buckets.js'
import { type Pair, pairName } from '../core/pair.js'
import { isObject } from '../core/series.js'
import { virtualServicesIn } from '../core/virtual-service-objects.js'
import { examine } from '../io/examination.js'
import { withAccess } from '../io/http-client.js'
import { readManifests } from '../io/manifest-files.js'
import { pollDeadlineMs } from '../io/serve-daemon.js'
import { readRecordingFile } from '../io/training-file.js'
import { command } from './command.js'
import { daemonFlags } from './daemon-flags.js'
import { anyText, optional, repeatable, toggle } from './flags.js'
import { pairFlags, scoringFlags } from './monitor.js'
import { prometheusAccess, prometheusFlags } from './prometheus-flags.js'

const flags = {
  ...pairFlags,
  ...prometheusFlags,
  'poll-interval-seconds': daemonFlags['poll-interval-seconds'],
  quantile: scoringFlags.quantile,
  'min-requests-per-second': scoringFlags['min-requests-per-second'],
  'virtual-services': repeatable(
    anyText,
    'file or directory of manifests to look through, such as the output of kubectl get virtualservices -A -o yaml',
  ),
  'training-data-file': optional(anyText, "the pair's recording, to be held against its latency now"),
  json: toggle('print one JSON object'),
} as const

export const doctorCommand = command({
  name: 'doctor',
  describe: 'Says in plain words what stands in the way of watching a pair, and what to do; exit 0, 1 (warnings), 2',
  flags,
  prepare: (values) => {
    const pair = { source: values.service1, destination: values.service2 }
    const labels = { sourceLabel: values['source-label'], destinationLabel: values['destination-label'] }
    const file = values['training-data-file']
    const asked = values.quantile ?? []
    const unlabelled = asked.length === 1 ? (asked[0] ?? DEFAULT_QUANTILE) : DEFAULT_QUANTILE
    const training = file === undefined ? null : trainingFacts(file, labels, unlabelled)
    const held = training?.series.map(({ quantile }) => quantile) ?? [DEFAULT_QUANTILE]
    const paths = values['virtual-services']
    const virtualServices =
      paths.length === 0 ? null : virtualServicesIn(paths.flatMap((path) => readManifests(path, '--virtual-services')))
    const pollIntervalSeconds = values['poll-interval-seconds']
    const subject: Subject = {
      pair,
      ...labels,
      prometheusUrl: values['prometheus-url'],
      window: values['query-window'],
      quantiles: asked.length === 0 ? held : asked,
      minRequestsPerSecond: values['min-requests-per-second'],
      pollIntervalSeconds,
      pollDeadlineSeconds: pollDeadlineMs(pollIntervalSeconds * 1000) / 1000,
    }
    const access = prometheusAccess(values)
    return {
      logTo: 'stderr',
      run: async (runtime) => {
        const examined = await examine(withAccess(runtime, access), subject, { hosts: virtualServices !== null })
        if (runtime.signal.aborted) throw new StartError('stopped before the examination was over')
        const findings = diagnose({ ...examined, virtualServices, training })
        const exitCode = exitCodeOf(findings)
        const { prometheusUrl } = subject
        await runtime.stdout.write(
          values.json
            ? `${JSON.stringify({ pair, prometheusUrl, findings, exitCode })}\n`
            : report(findings, { pair, prometheusUrl, exitCode }),
        )
        return exitCode
      },
    }
  },
})

/** What is scored when nobody says which. */
const DEFAULT_QUANTILE = 0.5

const MARKS: Readonly<Record<Finding['level'], string>> = { ok: 'ok', warning: 'WARN', fatal: 'FAIL' }
const MARK_WIDTH = 6

const VERDICTS = [
  'Nothing stands in the way.',
  'The pair can be watched; see the warnings.',
  'The pair cannot be watched like this.',
] as const

function report(
  findings: readonly Finding[],
  {
    pair,
    prometheusUrl,
    exitCode,
  }: { readonly pair: Pair; readonly prometheusUrl: string; readonly exitCode: 0 | 1 | 2 },
): string {
  const idWidth = Math.max(...findings.map(({ id }) => id.length)) + 2
  const lines = findings.flatMap(({ id, level, what, todo }) => [
    `${MARKS[level].padEnd(MARK_WIDTH)}${id.padEnd(idWidth)}${what}`,
    ...(todo === null ? [] : [`${' '.repeat(MARK_WIDTH + idWidth)}-> ${todo}`]),
  ])
  return `${[`${printable(pairName(pair))} in ${printable(prometheusUrl)}`, '', ...lines, '', VERDICTS[exitCode]].join('\n')}\n`
}

/** What a recording says of itself and holds. */
function trainingFacts(
  file: string,
  labels: { readonly sourceLabel: string; readonly destinationLabel: string },
  unlabelled: number,
): TrainingFacts {
  const { series } = readRecordingFile(file, '--training-data-file')
  const document: unknown = JSON.parse(readFileSync(file, 'utf8').replace(/^\uFEFF/, ''))
  const about = isObject(document) && isObject(document['meshfever']) ? document['meshfever'] : {}
  const query = typeof about['query'] === 'string' ? about['query'] : ''
  return {
    file,
    series: series.map(({ quantile, latenciesMs }) => {
      const sorted = latenciesMs.filter(Number.isFinite).sort((a, b) => a - b)
      if (sorted.length === 0) {
        throw new UsageError(`--training-data-file: ${file}: no finite value in ${latenciesMs.length} samples`)
      }
      // A quantile is not known better than its bucket.
      return {
        quantile: quantile ?? unlabelled,
        samples: sorted.length,
        medianMs: quantileSorted(sorted, 0.5),
        lowMs: bucketOf(quantileSorted(sorted, 0.01)).lowerMs,
        highMs: bucketOf(quantileSorted(sorted, 0.99)).upperMs,
      }
    }),
    pairs: [
      pairOf(about['pair'], { source: 'source', destination: 'destination' }),
      ...metricsOf(document).map((metric) =>
        pairOf(metric, { source: labels.sourceLabel, destination: labels.destinationLabel }),
      ),
    ],
    window: /\[(\w+)\]/.exec(query)?.[1] ?? null,
  }
}

function metricsOf(document: unknown): readonly unknown[] {
  const data = isObject(document) ? document['data'] : undefined
  const result = isObject(data) ? data['result'] : undefined
  return Array.isArray(result) ? result.map((item: unknown) => (isObject(item) ? item['metric'] : undefined)) : []
}

function pairOf(value: unknown, keys: Pair): Partial<Pair> {
  if (!isObject(value)) return {}
  const [source, destination] = [value[keys.source], value[keys.destination]]
  return {
    ...(typeof source === 'string' ? { source } : {}),
    ...(typeof destination === 'string' ? { destination } : {}),
  }
}
