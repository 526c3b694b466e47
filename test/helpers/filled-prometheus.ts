import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { startChild } from '../../src/testbed/child-process.js'
import { findPrometheus } from '../../src/testbed/prometheus-server.js'
import { fakeRuntime } from './fake-runtime.js'

/** Samples of one series: times in unix seconds, rising. */
export interface FilledSeries {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly samples: readonly (readonly [timeSeconds: number, value: number])[]
}

export interface FilledPrometheus {
  readonly url: string
  /** Ends it without a word, and resolves when it is gone. */
  readonly kill: () => Promise<void>
  readonly stop: () => Promise<void>
}

/** A real Prometheus that remembers what it never scraped: weeks of history cost no time. */
export async function startFilledPrometheus(series: readonly FilledSeries[]): Promise<FilledPrometheus> {
  const folder = mkdtempSync(join(tmpdir(), 'meshfever-history-'))
  const remove = (): void => rmSync(folder, { recursive: true, force: true })
  try {
    const [input, data, config] = ['history.txt', 'data', 'prometheus.yml'].map((name) => join(folder, name))
    writeFileSync(input!, openMetrics(series))
    writeFileSync(config!, 'global: {scrape_interval: 1h}\n')
    const filled = spawnSync(
      'promtool',
      ['tsdb', 'create-blocks-from', 'openmetrics', '--max-block-duration=672h', '--quiet', input!, data!],
      { encoding: 'utf8' },
    )
    if (filled.status !== 0) throw new Error(`promtool: ${filled.stderr}`)
    const runtime = fakeRuntime([])
    const program = { ...runtime.program, environment: process.env, isRoot: process.getuid?.() === 0 }
    const child = startChild({
      name: 'prometheus',
      command: await findPrometheus({ ...runtime, program }),
      args: [
        `--config.file=${config}`,
        `--storage.tsdb.path=${data}`,
        '--storage.tsdb.retention.time=100y',
        '--web.listen-address=127.0.0.1:0',
      ],
    })
    try {
      const address = await child.waitForLine((line) => /"?Listening on"? address=(\S+)/.exec(line)?.[1])
      await child.waitForLine((line) => (line.includes('Server is ready to receive web requests') ? true : undefined))
      return {
        url: `http://${address}`,
        kill: async () => {
          child.signal('SIGKILL')
          await child.exited
        },
        stop: async () => {
          await child.stop()
          remove()
        },
      }
    } catch (error) {
      await child.stop()
      throw error
    }
  } catch (error) {
    remove()
    throw error
  }
}

/** One line a sample; series of one name must stand together. */
function openMetrics(series: readonly FilledSeries[]): string {
  const lines: string[] = []
  for (const name of new Set(series.map((one) => one.name))) {
    lines.push(`# TYPE ${name} unknown`)
    for (const { labels, samples } of series.filter((one) => one.name === name)) {
      const text = Object.entries(labels)
        .map(([label, value]) => `${label}="${escaped(value)}"`)
        .join(',')
      for (const [timeSeconds, value] of samples) lines.push(`${name}{${text}} ${value} ${timeSeconds}`)
    }
  }
  return `${lines.join('\n')}\n# EOF\n`
}

function escaped(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
}

/**
 * What Istio's sidecars count of a pair: a histogram and its count. `latencyMs` and `requestsPerSecond` give the median of
 * the requests since the last scrape (spread over a factor of two around it) and their rate.
 */
export function istioHistory(
  labels: Readonly<Record<string, string>>,
  options: {
    readonly startSeconds: number
    readonly scrapes: number
    readonly scrapeSeconds: number
    readonly latencyMs: (timeSeconds: number) => number
    readonly requestsPerSecond: (timeSeconds: number) => number
  },
): readonly FilledSeries[] {
  const { startSeconds, scrapes, scrapeSeconds, latencyMs, requestsPerSecond } = options
  const bounds = [1, 5, 10, 25, 50, 100, 250, Infinity]
  const counters = bounds.map(() => 0)
  const samples = bounds.map((): [number, number][] => [])
  for (let i = 0; i < scrapes; i++) {
    const time = startSeconds + i * scrapeSeconds
    const requests = Math.round(requestsPerSecond(time) * scrapeSeconds)
    const median = latencyMs(time)
    bounds.forEach((bound, k) => {
      // Log latency is even between half and twice the median.
      const below = Math.min(1, Math.max(0, Math.log(bound / (median / 2)) / Math.log(4)))
      counters[k]! += bound === Infinity ? requests : Math.round(requests * below)
      samples[k]!.push([time, counters[k]!])
    })
  }
  const name = 'istio_request_duration_milliseconds'
  return [
    ...bounds.map((bound, k) => ({
      name: `${name}_bucket`,
      labels: { ...labels, le: bound === Infinity ? '+Inf' : String(bound) },
      samples: samples[k]!,
    })),
    { name: `${name}_count`, labels, samples: samples.at(-1)! },
  ]
}
