/*
 * What a poll costs: CPU and memory of one monitor and of the incident daemon at one poll a second against a real
 * Prometheus, next to the CPU that Prometheus spends on answering them.
 *
 *   npm run bench [-- MINUTES]          10 minutes unless given
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { type Child, listeningUrl, logged, startChild } from '../src/testbed/child-process.js'
import { findPrometheus, startPrometheus, writeTargets } from '../src/testbed/prometheus-server.js'
import { courseOf, readSelf, rounded, type SelfReading } from './daemon-metrics.js'
import { benchRuntime } from './runtime.js'

const runtime = benchRuntime()
const { clock, signal, program } = runtime
const minutes = Number(process.argv[2] ?? 10)
const idleSeconds = Math.min(120, minutes * 30)
const sampleSeconds = 5

const GOAL_CPU_MS_PER_POLL = 20
const GOAL_RSS_MIB = 90

/** Prometheus says of itself what we do. */
function usage(url: string): Promise<SelfReading> {
  return readSelf(runtime, url)
}

const folder = mkdtempSync(join(tmpdir(), 'meshfever-bench-'))
const children: Child[] = []
function meshfever(name: string, args: readonly string[]): Child {
  const child = startChild({ name, command: program.nodePath, args: [program.scriptPath, ...args] })
  children.push(child)
  return child
}

try {
  const sidecars = join(folder, 'sidecars.json')
  const daemonTargets = join(folder, 'daemons.json')
  const training = join(folder, 'training.json')
  writeTargets(daemonTargets, [])
  const testbed = meshfever('testbed', ['testbed', '--users', '20', '--file-sd', sidecars])
  await testbed.waitForLine((line) => logged(line, 'testbed started'))
  const { url: prometheusUrl, child } = await startPrometheus({
    binary: await findPrometheus(runtime),
    folder: join(folder, 'prometheus'),
    scrapeIntervalSeconds: 1,
    jobs: [
      { name: 'istio-proxy', metricsPath: '/stats/prometheus', targetsFile: sidecars },
      { name: 'meshfever', metricsPath: '/metrics', targetsFile: daemonTargets },
    ],
  })
  children.push(child)
  // Any recording will do: what is measured does not depend on what is normal.
  const values = Array.from({ length: 240 }, (_, i) => [1_700_000_000 + 15 * i, String(5 + (i % 7) / 10)])
  writeFileSync(
    training,
    JSON.stringify({ status: 'success', data: { resultType: 'matrix', result: [{ metric: {}, values }] } }),
  )
  await clock.sleep(15_000, signal)
  const idleFrom = await usage(prometheusUrl)
  await clock.sleep(idleSeconds * 1000, signal)
  const idleTo = await usage(prometheusUrl)
  const idleCpuPerSecond = (idleTo.cpuSeconds - idleFrom.cpuSeconds) / idleSeconds

  const daemonFlags = [
    ...['--prometheus-url', prometheusUrl, '--poll-interval-seconds', '1', '--prometheus-port', '0'],
    ...['--listen-address', '127.0.0.1', '--log-format', 'json'],
  ]
  const pair = ['--service1', 'frontend', '--service2', 'cartservice']
  const daemons = [
    meshfever('monitor', [
      'monitor',
      ...pair,
      '--training-data-file',
      training,
      '--query-window',
      '15s',
      ...daemonFlags,
    ]),
    meshfever('incident', ['incident', '--pair', 'frontend:cartservice', ...daemonFlags]),
  ]
  const urls = await Promise.all(daemons.map((daemon) => daemon.waitForLine(listeningUrl)))
  writeTargets(
    daemonTargets,
    urls.map((url) => ({ targets: [new URL(url).host] })),
  )
  await clock.sleep(15_000, signal)

  const all = [...urls, prometheusUrl]
  const series: SelfReading[][] = all.map(() => [])
  const samples = Math.floor((minutes * 60) / sampleSeconds) + 1
  for (let i = 0; i < samples && !signal.aborted; i++) {
    const now = await Promise.all(all.map(usage))
    now.forEach((value, k) => series[k]?.push(value))
    await clock.sleep(sampleSeconds * 1000, signal)
  }
  const seconds = (samples - 1) * sampleSeconds
  const spent = series.map((values) => (values.at(-1)?.cpuSeconds ?? NaN) - (values[0]?.cpuSeconds ?? NaN))
  const memory = (values: readonly SelfReading[] = []): object => ({
    rss: courseOf(
      values.map(({ rssMiB }) => rssMiB),
      sampleSeconds,
    ),
  })
  const answering = (spent[2] ?? NaN) - idleCpuPerSecond * seconds
  console.log(
    JSON.stringify(
      {
        minutes,
        pollsEach: seconds,
        goals: { cpuMsPerPoll: GOAL_CPU_MS_PER_POLL, rssMiB: GOAL_RSS_MIB },
        monitor: { cpuMsPerPoll: rounded((1000 * (spent[0] ?? NaN)) / seconds), ...memory(series[0]) },
        incident: { cpuMsPerPoll: rounded((1000 * (spent[1] ?? NaN)) / seconds), ...memory(series[1]) },
        prometheus: {
          cpuMsPerSecondIdle: rounded(1000 * idleCpuPerSecond),
          cpuMsPerPollAnsweringAndScrapingBoth: rounded((1000 * answering) / seconds),
        },
        ratioOurCpuToPrometheus: rounded(((spent[0] ?? NaN) + (spent[1] ?? NaN)) / answering),
      },
      null,
      2,
    ),
  )
} finally {
  await Promise.allSettled(children.reverse().map((each) => each.stop()))
  rmSync(folder, { recursive: true, force: true })
}
