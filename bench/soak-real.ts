/** The soak in real time: both daemons against a real Prometheus and the testbed, with a fault now and then. */
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { median } from 'simple-statistics'

import { StartError } from '../src/core/errors.js'
import type { Runtime } from '../src/io/runtime.js'
import { type Child, logged } from '../src/testbed/child-process.js'
import {
  checkRunning,
  isTransition,
  meshfeverStarter,
  serviceFlags,
  startDaemons,
} from '../src/testbed/daemon-processes.js'
import {
  findPrometheus,
  type PrometheusServer,
  startPrometheus,
  writeTargets,
} from '../src/testbed/prometheus-server.js'
import { courseOf, readSelf, rounded, type SelfReading } from './daemon-metrics.js'

const PAIR = { source: 'frontend', destination: 'cartservice' }
const FAULT_FILE = 'frontend-cartservice-delay.yaml'
const FAULTS = fileURLToPath(new URL('../../k8s/faults/', import.meta.url))
const WINDOW_SECONDS = 15
const TRAINING_SECONDS = 60
const SAMPLE_SECONDS = 10
/** From the start of one fault to the start of the next. */
const FAULT_EVERY_SECONDS = 75
const STOPPED_SECONDS = 10
const DELAY_SECONDS = 30
const PATIENCE_SECONDS = 60

type Daemon = 'monitor' | 'incident'

interface FaultRecord {
  readonly fault: string
  readonly fromSeconds: number
  readonly toSeconds: number
  /** Until both daemons had a good poll once more. */
  readonly recoverySeconds: number
}

/**
 * Resolves with what was seen.
 *
 * @throws {StartError} when something cannot be started, or a daemon ends
 */
export async function soakInRealTime(runtime: Runtime, minutes: number): Promise<object> {
  const folder = mkdtempSync(join(tmpdir(), 'meshfever-soak-'))
  const children: Child[] = []
  try {
    return await soak(runtime, { minutes, folder, children })
  } finally {
    await Promise.allSettled(children.reverse().map((child) => child.stop()))
    rmSync(folder, { recursive: true, force: true })
  }
}

async function soak(
  runtime: Runtime,
  { minutes, folder, children }: { readonly minutes: number; readonly folder: string; readonly children: Child[] },
): Promise<object> {
  const { clock, signal, program } = runtime
  const started = (child: Child): void => void children.push(child)
  const start = meshfeverStarter(program)
  const files = {
    sidecars: join(folder, 'sidecars.json'),
    daemons: join(folder, 'daemons.json'),
    faults: join(folder, 'faults'),
    training: join(folder, 'training.json'),
  }
  mkdirSync(files.faults)
  writeTargets(files.daemons, [])

  const testbed = start('testbed', [
    ...['testbed', '--users', '20', '--wait-seconds', '0.5-1.5', '--seed', '7'],
    ...['--faults-dir', files.faults, '--file-sd', files.sidecars],
  ])
  started(testbed)
  await testbed.waitForLine((line) => logged(line, 'testbed started'))
  const binary = await findPrometheus(runtime)
  const prometheusAt = (port: number): Promise<PrometheusServer> =>
    startPrometheus({
      binary,
      folder: join(folder, 'prometheus'),
      scrapeIntervalSeconds: 1,
      port,
      jobs: [
        { name: 'istio-proxy', metricsPath: '/stats/prometheus', targetsFile: files.sidecars },
        { name: 'meshfever', metricsPath: '/metrics', targetsFile: files.daemons },
      ],
      started,
    })
  let prometheus = await prometheusAt(0)
  const prometheusPort = Number(new URL(prometheus.url).port)

  await clock.sleep((WINDOW_SECONDS + 6 + TRAINING_SECONDS) * 1000, signal)
  const record = start('record', [
    ...['record', ...serviceFlags(PAIR), '--prometheus-url', prometheus.url, '--query-window', `${WINDOW_SECONDS}s`],
    ...['--range', `${TRAINING_SECONDS}s`, '--step-seconds', '1', '--output', files.training],
  ])
  started(record)
  await record.waitForLine((line) => logged(line, 'recorded'))

  const opened: number[] = []
  const daemons = await startDaemons(
    {
      start,
      pairs: [{ ...PAIR, accumulatorThreshold: 5, trainingFile: files.training }],
      latencyUrl: prometheus.url,
      gaugesUrl: prometheus.url,
      queryWindow: `${WINDOW_SECONDS}s`,
      pollIntervalSeconds: 1,
      staleAfterSeconds: 20,
      targetsFile: files.daemons,
      monitorFlags: [],
      incidentFlags: [],
      onLine: (_, line) => {
        const event = line.startsWith('{') ? (JSON.parse(line) as Readonly<Record<string, unknown>>) : {}
        if (isTransition(event) && event['transition'] === 'opened') opened.push(clock.nowMs() / 1000)
      },
    },
    started,
  )
  const names: readonly Daemon[] = ['monitor', 'incident']
  const both = async (): Promise<readonly SelfReading[]> =>
    Promise.all(daemons.urls.map((url) => readSelf(runtime, url)))
  const goodPolls = ({ polls }: SelfReading): number => (polls['ok'] ?? 0) + (polls['warnings'] ?? 0)
  /** Resolves when each has had a good poll from now on. */
  const recovered = async (): Promise<number> => {
    const fromMs = clock.monotonicMs()
    const before = (await both()).map(goodPolls)
    for (;;) {
      const seconds = (clock.monotonicMs() - fromMs) / 1000
      if ((await both()).every((now, i) => goodPolls(now) > (before[i] ?? NaN))) return seconds
      if (seconds > PATIENCE_SECONDS) throw new StartError(`no good poll within ${PATIENCE_SECONDS} s of a fault's end`)
      await clock.sleep(200, signal)
    }
  }
  await recovered()

  const seconds = (count: number): Promise<void> => clock.sleep(count * 1000, signal)
  const frozen = async (child: Child): Promise<void> => {
    child.signal('SIGSTOP')
    await seconds(STOPPED_SECONDS)
    child.signal('SIGCONT')
  }
  const restarted = async (name: 'SIGTERM' | 'SIGKILL'): Promise<void> => {
    prometheus.child.signal(name)
    await prometheus.child.exited
    await seconds(2)
    prometheus = await prometheusAt(prometheusPort)
  }
  const daemon = (name: Daemon): Child => {
    const child = daemons.children[names.indexOf(name)]
    if (child === undefined) throw new TypeError(name)
    return child
  }
  const faults: readonly (readonly [name: string, happen: () => Promise<void>])[] = [
    [
      'requests delayed for 30 s',
      async () => {
        copyFileSync(join(FAULTS, FAULT_FILE), join(files.faults, FAULT_FILE))
        await seconds(DELAY_SECONDS)
        rmSync(join(files.faults, FAULT_FILE))
      },
    ],
    ['Prometheus stopped for 10 s (SIGSTOP)', () => frozen(prometheus.child)],
    ['Prometheus restarted (SIGTERM)', () => restarted('SIGTERM')],
    ['monitor stopped for 10 s (SIGSTOP)', () => frozen(daemon('monitor'))],
    ['Prometheus killed and started (SIGKILL)', () => restarted('SIGKILL')],
    ['incident daemon stopped for 10 s (SIGSTOP)', () => frozen(daemon('incident'))],
  ]

  const startMs = clock.monotonicMs()
  const nowSeconds = (): number => (clock.monotonicMs() - startMs) / 1000
  const startSeconds = clock.nowMs() / 1000
  const endSeconds = minutes * 60
  const until = (at: number): Promise<void> => seconds(Math.max(0, at - nowSeconds()))
  const samples: (readonly SelfReading[])[] = []
  const records: FaultRecord[] = []

  const sampling = async (): Promise<void> => {
    for (let i = 0; i * SAMPLE_SECONDS <= endSeconds && !signal.aborted; i++) {
      await until(i * SAMPLE_SECONDS)
      checkRunning(daemons.children, 'during the soak')
      samples.push(await both())
    }
  }
  const troubling = async (): Promise<void> => {
    // The last minute is left in peace.
    for (let i = 0; (i + 1) * FAULT_EVERY_SECONDS < endSeconds - 60 && !signal.aborted; i++) {
      await until((i + 0.5) * FAULT_EVERY_SECONDS)
      const [fault, happen] = faults[i % faults.length] ?? faults[0]!
      const fromSeconds = nowSeconds()
      await happen()
      const toSeconds = nowSeconds()
      records.push({ fault, fromSeconds, toSeconds, recoverySeconds: await recovered() })
    }
  }
  await Promise.all([sampling(), troubling()])
  if (signal.aborted) throw new StartError('stopped before the end of the soak')

  const exitCodes = await Promise.all(daemons.children.map((child) => child.stop()))
  const duringDelay = (at: number): boolean =>
    records.some(
      ({ fault, fromSeconds, toSeconds }) =>
        fault.startsWith('requests delayed') &&
        at - startSeconds >= fromSeconds &&
        at - startSeconds <= toSeconds + WINDOW_SECONDS,
    )
  return {
    minutes,
    processors: availableParallelism(),
    node: program.nodeVersion,
    prometheus: prometheus.version,
    pollIntervalSeconds: 1,
    faults: faults.map(([fault]) => {
      const recovery = records.filter((one) => one.fault === fault).map(({ recoverySeconds }) => recoverySeconds)
      return {
        fault,
        times: recovery.length,
        ...(recovery.length === 0
          ? {}
          : { recoveryMedianSeconds: rounded(median(recovery)), recoveryMaxSeconds: rounded(Math.max(...recovery)) }),
      }
    }),
    incidents: {
      openedDuringDelay: opened.filter(duringDelay).length,
      openedOtherwise: opened.filter((at) => !duringDelay(at)).length,
    },
    daemons: Object.fromEntries(
      names.map((name, i) => {
        const course = samples.flatMap((sample) => sample[i] ?? [])
        return [name, { ...summaryOf(course), exitCode: exitCodes[i] }]
      }),
    ),
  }
}

/** V8 lets garbage lie: what is left is seen in the lowest reading of some minutes. */
const FLOOR_SAMPLES = 30

function summaryOf(course: readonly SelfReading[]): object {
  const [first, last] = [course[0], course.at(-1)]
  if (first === undefined || last === undefined) throw new StartError('the soak was too short for a single sample')
  const floors: number[] = []
  for (let i = 0; i + FLOOR_SAMPLES <= course.length; i += FLOOR_SAMPLES) {
    floors.push(Math.min(...course.slice(i, i + FLOOR_SAMPLES).map(({ heapMiB }) => heapMiB)))
  }
  const rssMedians: number[] = []
  for (let i = 0; i < course.length; i += 2 * FLOOR_SAMPLES) {
    rssMedians.push(median(course.slice(i, i + 2 * FLOOR_SAMPLES).map(({ rssMiB }) => rssMiB)))
  }
  const polls = Object.values(last.polls).reduce((a, b) => a + b, 0)
  const pollsBefore = Object.values(first.polls).reduce((a, b) => a + b, 0)
  return {
    rss: courseOf(
      course.map(({ rssMiB }) => rssMiB),
      SAMPLE_SECONDS,
    ),
    rssMedianOfEachTenMinutesMiB: rssMedians.map(rounded),
    heap: courseOf(
      course.map(({ heapMiB }) => heapMiB),
      SAMPLE_SECONDS,
    ),
    heapLowestOfEachFiveMinutesMiB: floors.map(rounded),
    openFileDescriptors: { first: first.openFileDescriptors, last: last.openFileDescriptors },
    cpuMsPerPoll: rounded((1000 * (last.cpuSeconds - first.cpuSeconds)) / (polls - pollsBefore)),
    polls: last.polls,
    skippedPolls: last.skippedPolls,
  }
}
