import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { StartError } from '../core/errors.js'
import type { FaultWindow, GroundTruth, Window } from '../core/ground-truth.js'
import { pairName } from '../core/pair.js'
import { queryRange } from '../io/prometheus.js'
import type { Runtime } from '../io/runtime.js'
import { type Child, logged } from './child-process.js'
import {
  checkRunning,
  evaluationsOf,
  isAnomalous,
  isTransition,
  meshfeverStarter,
  newestStatus,
  serviceFlags,
  startDaemons,
} from './daemon-processes.js'
import { createNarrator } from './narrator.js'
import { findPrometheus, startPrometheus, writeTargets } from './prometheus-server.js'
import { PICTURE_QUERY, storyPicture } from './story-picture.js'

/** Shortened for a story of a few minutes; on a cluster: 15 s, 1m, 5 s. */
const SCRAPE_SECONDS = 1
const WINDOW_SECONDS = 15
const POLL_SECONDS = 2.5

const TRAINING_SECONDS = 36
const NORMAL_SECONDS = 10
const SURGE_USERS = 400
const SURGE_SECONDS = 2

/** The services run on this machine: when it has other work, everything takes some milliseconds more. The faults are 200 ms. */
const MIN_DEVIATION_MS = 40

/** How long the story waits for what should happen before it says that it did not. */
const PATIENCE_SECONDS = 90

/** Given to the incident daemon, drawn into the picture. */
const INCIDENT_THRESHOLD = 10
const CLEAR_THRESHOLD = 5
const ACCUMULATOR_THRESHOLD = 5

const PAIRS = [
  { source: 'frontend', destination: 'cartservice', fault: 'frontend-cartservice-delay.yaml' },
  { source: 'checkoutservice', destination: 'paymentservice', fault: 'checkoutservice-paymentservice-delay.yaml' },
] as const

const FAULTS = fileURLToPath(new URL('../../../k8s/faults/', import.meta.url))

/** One line of the closing table. */
interface Chapter {
  readonly happening: string
  readonly expected: string
  readonly seen: string
  readonly agrees: boolean
  /** Seconds the chapter took; null where time is no matter. */
  readonly seconds: number | null
}

export interface StoryOptions {
  /** Stay up at the end, until the signal aborts. */
  readonly keep: boolean
  /** Where to save a picture of it all, as SVG. */
  readonly picture: string | undefined
}

/**
 * Starts the testbed, a Prometheus and the daemons, each as a process of its own, and tells what they do while load and
 * faults come and go.
 *
 * @returns whether everything happened as expected
 * @throws {StartError} when something cannot be started, or ended by itself
 */
export async function tellStory(runtime: Runtime, { keep, picture }: StoryOptions): Promise<boolean> {
  const folder = mkdtempSync(join(tmpdir(), 'meshfever-demo-'))
  const children: Child[] = []
  try {
    return await tell(runtime, { keep, picture, folder, children })
  } finally {
    await Promise.allSettled(children.reverse().map((child) => child.stop()))
    rmSync(folder, { recursive: true, force: true })
  }
}

async function tell(
  runtime: Runtime,
  { keep, picture, folder, children }: StoryOptions & { readonly folder: string; readonly children: Child[] },
): Promise<boolean> {
  const { clock, signal, stdout, program } = runtime
  const say = createNarrator(runtime)
  const wait = async (seconds: number): Promise<void> => {
    await clock.sleep(seconds * 1000, signal)
    if (signal.aborted) throw new Interrupted()
  }
  const started = (child: Child): Child => {
    children.push(child)
    return child
  }
  const start = meshfeverStarter(program)
  const meshfever = (name: string, args: readonly string[]): Child => started(start(name, args))

  const files = {
    sidecars: join(folder, 'sidecars.json'),
    daemons: join(folder, 'daemons.json'),
    faults: join(folder, 'faults'),
    load: join(folder, 'extra-users'),
  }
  mkdirSync(files.faults)
  writeFileSync(files.load, '0\n')
  writeTargets(files.daemons, [])

  const binary = await findPrometheus(runtime)
  await say('Starting Online Boutique in small: ten services with sidecars, and 40 users who shop.')
  const testbed = meshfever('testbed', [
    'testbed',
    ...['--topology', 'online-boutique', '--seed', '7'],
    ...['--users', '40', '--wait-seconds', '0.5-1.5', '--spawn-rate', '400'],
    ...['--faults-dir', files.faults, '--load-file', files.load, '--file-sd', files.sidecars],
  ])
  const frontendUrl = await testbed.waitForLine((line) => logged(line, 'testbed started')?.['frontend'])
  const prometheus = await startPrometheus({
    binary,
    folder: join(folder, 'prometheus'),
    scrapeIntervalSeconds: SCRAPE_SECONDS,
    jobs: [
      { name: 'istio-proxy', metricsPath: '/stats/prometheus', targetsFile: files.sidecars },
      { name: 'meshfever', metricsPath: '/metrics', targetsFile: files.daemons },
    ],
  })
  started(prometheus.child)
  await say(`Prometheus scrapes the sidecars each second: ${prometheus.url}`)

  await say(`Learning what is normal: ${TRAINING_SECONDS} s of traffic.`)
  // The first window must be full, and discovery takes Prometheus some seconds.
  await wait(WINDOW_SECONDS + 6 + TRAINING_SECONDS)
  const recordings = PAIRS.map(({ source, destination }) => join(folder, `${source}-${destination}.json`))
  await Promise.all(
    PAIRS.map(async (pair, i) => {
      const record = meshfever(`record ${pairName(pair)}`, [
        'record',
        ...serviceFlags(pair),
        ...['--prometheus-url', prometheus.url, '--query-window', `${WINDOW_SECONDS}s`],
        ...['--range', `${TRAINING_SECONDS}s`, '--step-seconds', '1', '--output', recordings[i] ?? ''],
      ])
      await record.waitForLine((line) => logged(line, 'recorded'))
      await record.exited
    }),
  )
  await say(`Recorded ${PAIRS.map(pairName).join(' and ')} with \`meshfever record\`.`)

  const {
    children: daemons,
    urls,
    events,
  } = await startDaemons(
    {
      start,
      pairs: PAIRS.map((pair, i) => ({
        ...pair,
        accumulatorThreshold: ACCUMULATOR_THRESHOLD,
        trainingFile: recordings[i] ?? '',
      })),
      latencyUrl: prometheus.url,
      gaugesUrl: prometheus.url,
      queryWindow: `${WINDOW_SECONDS}s`,
      pollIntervalSeconds: POLL_SECONDS,
      staleAfterSeconds: 20,
      targetsFile: files.daemons,
      monitorFlags: ['--min-deviation-ms', String(MIN_DEVIATION_MS)],
      incidentFlags: [
        ...['--incident-threshold', String(INCIDENT_THRESHOLD), '--clear-threshold', String(CLEAR_THRESHOLD)],
      ],
    },
    started,
  )
  await say(`Started a monitor for each pair and the incident daemon, polling each ${POLL_SECONDS} s.`)
  for (const { msg } of events) {
    if (typeof msg === 'string' && msg.startsWith('timing contract: ')) await say(`  ${msg}`)
  }

  /** Waits for what the daemons log; null when it does not come in time. */
  const until = async (seen: () => boolean): Promise<number | null> => {
    const fromMs = clock.monotonicMs()
    const elapsed = (): number => (clock.monotonicMs() - fromMs) / 1000
    while (!seen()) {
      if (elapsed() > PATIENCE_SECONDS) return null
      checkRunning(daemons, 'in the middle of the story')
      await wait(0.2)
    }
    return elapsed()
  }
  const opened = (): number => events.filter((event) => isTransition(event) && event['transition'] === 'opened').length
  const anomalies = (): number => events.filter(isAnomalous).length
  const reached = (severity: number): boolean =>
    events.some((event) => isTransition(event) && event['severity'] === severity)
  const quiet = (): boolean => {
    const status = newestStatus(events)
    const monitorsOk = PAIRS.every((pair) => evaluationsOf(events, pair).at(-1)?.['verdict'] === 'ok')
    return status?.['temperature'] === 0 && status['unknown'] === undefined && monitorsOk
  }

  const chapters: Chapter[] = []
  const nowSeconds = (): number => clock.nowMs() / 1000
  const faults: FaultWindow[] = []
  const transients: Window[] = []
  const close = async (chapter: Chapter): Promise<void> => {
    chapters.push(chapter)
    await say(`${chapter.agrees ? '->' : '-> NOT AS EXPECTED:'} ${chapter.seen}`)
  }

  if ((await until(quiet)) === null) throw new StartError('the incident daemon heard nothing of the pairs')
  const startSeconds = nowSeconds()
  await say('Normal traffic. Nothing should happen.')
  await wait(NORMAL_SECONDS)
  await close({
    happening: 'normal traffic',
    expected: 'no incident',
    seen: opened() === 0 ? 'no incident' : 'an incident',
    agrees: opened() === 0,
    seconds: null,
  })

  await say(
    `A surge: ${SURGE_USERS} more users, all at once, for ${SURGE_SECONDS} s. A transient, nobody should be paged.`,
  )
  const surgeSeconds = nowSeconds()
  const anomaliesBefore = anomalies()
  writeFileSync(files.load, `${SURGE_USERS}\n`)
  await wait(SURGE_SECONDS)
  writeFileSync(files.load, '0\n')
  transients.push({ name: `+${SURGE_USERS} users`, fromSeconds: surgeSeconds, toSeconds: nowSeconds() })
  await until(() => anomalies() > anomaliesBefore)
  const overSeconds = await until(quiet)
  const surgeAnomalies = anomalies() - anomaliesBefore
  await close({
    happening: `transient of ${SURGE_SECONDS} s`,
    expected: 'anomalies, no incident',
    seen: `${surgeAnomalies === 0 ? 'no anomalies' : `${surgeAnomalies} anomalies`}, ${opened() === 0 ? 'no incident' : 'an incident'}`,
    agrees: surgeAnomalies > 0 && opened() === 0 && overSeconds !== null,
    seconds: null,
  })

  const inject = async (fault: string): Promise<void> => {
    await say(`kubectl apply -f k8s/faults/${fault}: 0.2 s more for each request.`)
    copyFileSync(join(FAULTS, fault), join(files.faults, fault))
  }
  const firstFaultSeconds = nowSeconds()
  await inject(PAIRS[0].fault)
  const sev2Seconds = await until(() => reached(2))
  await close(happened('delay on one pair', 'Sev 2', sev2Seconds))

  const secondFaultSeconds = nowSeconds()
  await inject(PAIRS[1].fault)
  const sev1Seconds = await until(() => reached(1))
  await close(happened('delay on both pairs', 'Sev 1', sev1Seconds))

  await say('kubectl delete: both faults are gone.')
  for (const [i, { fault, ...pair }] of PAIRS.entries()) {
    rmSync(join(files.faults, fault))
    const fromSeconds = i === 0 ? firstFaultSeconds : secondFaultSeconds
    faults.push({ name: `delay for ${pair.destination}`, fromSeconds, toSeconds: nowSeconds(), pairs: [pair] })
  }
  const resolvedSeconds = await until(() =>
    events.some((event) => isTransition(event) && event['transition'] === 'resolved'),
  )
  await close(happened('faults removed', 'resolved', resolvedSeconds))

  if (picture !== undefined) {
    await wait(2 * POLL_SECONDS) // the end of the incident belongs to the picture
    await savePicture(runtime, {
      prometheusUrl: prometheus.url,
      startSeconds,
      groundTruth: { faults, transients },
      path: picture,
    })
    await say(`Picture saved: ${picture}`)
  }
  await stdout.write(`\n${tableOf(chapters)}\n`)
  const asExpected = chapters.every(({ agrees }) => agrees) && opened() === 1
  await stdout.write(asExpected ? 'Everything happened as expected.\n' : 'Not everything happened as expected.\n')
  if (keep) {
    const addresses = [
      ['Prometheus', prometheus.url],
      ['shop', frontendUrl],
      ...daemons.map((daemon, i) => [daemon.name, `${urls[i] ?? ''}/ and /metrics`]),
      ['faults', `copy a VirtualService into ${files.faults}`],
    ]
    for (const [name, address] of addresses) await stdout.write(`  ${String(name).padEnd(44)}${String(address)}\n`)
    await stdout.write('Staying up until Ctrl-C.\n')
    await clock.sleep(2 ** 31 - 1, signal)
  }
  return asExpected
}

async function savePicture(
  runtime: Runtime,
  options: {
    readonly prometheusUrl: string
    readonly startSeconds: number
    readonly groundTruth: GroundTruth
    readonly path: string
  },
): Promise<void> {
  const { prometheusUrl, startSeconds, groundTruth, path } = options
  const endSeconds = runtime.clock.nowMs() / 1000
  const answer = await queryRange(runtime, {
    prometheusUrl,
    query: PICTURE_QUERY,
    startSeconds,
    endSeconds,
    stepSeconds: 1,
    deadlineMs: 20_000,
  })
  if (answer.kind === 'failure') throw new StartError(`no picture: ${answer.detail}`)
  const svg = await storyPicture({
    matrix: answer.data,
    pairs: PAIRS.map((pair) => ({ ...pair, accumulatorThreshold: ACCUMULATOR_THRESHOLD })),
    startSeconds,
    endSeconds,
    groundTruth,
    incidentThreshold: INCIDENT_THRESHOLD,
    clearThreshold: CLEAR_THRESHOLD,
  })
  writeFileSync(path, svg)
}

class Interrupted extends StartError {
  constructor() {
    super('stopped before the end of the story')
  }
}

function happened(happening: string, expected: string, seconds: number | null): Chapter {
  return {
    happening,
    expected,
    seen: seconds === null ? `nothing within ${PATIENCE_SECONDS} s` : expected,
    agrees: seconds !== null,
    seconds,
  }
}

function tableOf(chapters: readonly Chapter[]): string {
  const rows = [
    ['what happened', 'expected', 'seen', 'after'],
    ...chapters.map(({ happening, expected, seen, seconds }) => [
      happening,
      expected,
      seen,
      seconds === null ? '' : `${seconds.toFixed(0)} s`,
    ]),
  ]
  const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
