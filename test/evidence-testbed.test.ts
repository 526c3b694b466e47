import assert from 'node:assert/strict'
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'

import { type Evidence, evidenceText } from '../src/core/evidence.js'
import { pairName } from '../src/core/pair.js'
import { type Child, listeningUrl, logged, startChild } from '../src/testbed/child-process.js'
import { findPrometheus, startPrometheus, writeTargets } from '../src/testbed/prometheus-server.js'
import { fakeRuntime } from './helpers/fake-runtime.js'
import { packageRoot } from './helpers/package-root.js'
import { PROGRAM } from './helpers/program.js'
import { recordingOf } from './helpers/recordings.js'
import { temporaryFolder } from './helpers/temporary-folder.js'

const WINDOW_SECONDS = 8
const PAIRS = [
  { source: 'frontend', destination: 'cartservice', usualMs: 10 },
  { source: 'checkoutservice', destination: 'cartservice', usualMs: 10 },
  { source: 'checkoutservice', destination: 'paymentservice', usualMs: 10 },
  { source: 'frontend', destination: 'checkoutservice', usualMs: 60 },
] as const
const CART_FAULT = 'frontend-cartservice-delay.yaml'
const PAYMENT_FAULT = 'checkoutservice-paymentservice-delay.yaml'

/** Wide: these machines are busy, and a fault is a multiple. */
function training(usualMs: number): string {
  return recordingOf(Array.from({ length: 60 }, (_, i) => usualMs * (0.6 + 0.2 * (i % 5))))
}

/** Online Boutique in small, with enough orders for a quantile, and a cart service as slow as told. */
function topology(cartMs: number): string {
  const boutique = readFileSync(join(packageRoot(), 'topologies', 'online-boutique.yaml'), 'utf8')
  const changed = boutique
    .replace('checkout: { weight: 1,', 'checkout: { weight: 6,')
    .replace(
      /(name: cartservice\n +concurrency: )1\n( +queueLimit: .*\n +serviceTimeMs: ).*/,
      `$132\n$2{ median: ${cartMs}, sigma: 0.2 }`,
    )
  assert.equal(changed.includes(`median: ${cartMs}, sigma: 0.2`), true)
  return changed
}

interface Mesh {
  readonly apply: (fault: string) => void
  readonly remove: (fault: string) => void
  /** Ends the shop and starts it again, with a cart service of this speed. */
  readonly shop: (cartMs: number) => Promise<void>
  readonly ask: (query: string) => Promise<number>
  /** An incident daemon; several are replicas. */
  readonly incident: () => Promise<Daemon>
}

interface Daemon {
  /** The first packet from now on for which it holds. */
  readonly packet: (what: string, matches: (evidence: Evidence) => boolean) => Promise<Evidence>
  /** All packets so far, as they were logged. */
  readonly packets: () => readonly Evidence[]
  /** Resolves when every pair is heard of and cold. */
  readonly quiet: () => Promise<void>
}

async function startMesh(t: TestContext): Promise<Mesh> {
  const folder = temporaryFolder(t)
  const children: Child[] = []
  t.after(() => Promise.allSettled(children.reverse().map((child) => child.stop())))
  const started = <T extends Child>(child: T): T => {
    children.push(child)
    return child
  }
  const environment = { PATH: process.env['PATH'] ?? '' }
  const meshfever = (name: string, args: readonly string[]): Child =>
    started(startChild({ name, command: process.execPath, args: [PROGRAM, ...args], environment }))

  const faults = join(folder, 'faults')
  mkdirSync(faults)
  const [sidecars, daemons] = [join(folder, 'sidecars.json'), join(folder, 'daemons.json')]
  writeTargets(daemons, [])
  let testbed: Child | undefined
  const shop = async (cartMs: number): Promise<void> => {
    await testbed?.stop()
    const file = join(folder, `cart-${cartMs}.yaml`)
    writeFileSync(file, topology(cartMs))
    testbed = meshfever('testbed', [
      ...[
        'testbed',
        '--topology',
        file,
        '--seed',
        '7',
        '--users',
        '14',
        '--wait-seconds',
        '0.5-1',
        '--spawn-rate',
        '400',
      ],
      ...['--faults-dir', faults, '--file-sd', sidecars],
    ])
    await testbed.waitForLine((line) => logged(line, 'testbed started'))
  }
  await shop(6)

  const runtime = fakeRuntime([])
  const program = { ...runtime.program, environment: process.env, isRoot: process.getuid?.() === 0 }
  const prometheus = await startPrometheus({
    binary: await findPrometheus({ ...runtime, program }),
    folder: join(folder, 'prometheus'),
    scrapeIntervalSeconds: 1,
    jobs: [
      { name: 'istio-proxy', metricsPath: '/stats/prometheus', targetsFile: sidecars },
      { name: 'meshfever', metricsPath: '/metrics', targetsFile: daemons },
    ],
  })
  started(prometheus.child)
  const common = [
    ...['--prometheus-url', prometheus.url, '--query-window', `${WINDOW_SECONDS}s`, '--poll-interval-seconds', '1'],
    ...['--prometheus-port', '0', '--listen-address', '127.0.0.1', '--log-format', 'json'],
  ]
  const urls = await Promise.all(
    PAIRS.map(({ source, destination, usualMs }) => {
      const file = join(folder, `${source}-${destination}.json`)
      writeFileSync(file, training(usualMs))
      const args = ['--service1', source, '--service2', destination, '--training-data-file', file]
      return meshfever(`monitor ${source} ${destination}`, ['monitor', ...args, ...common]).waitForLine(listeningUrl)
    }),
  )
  writeTargets(
    daemons,
    urls.map((url) => ({ targets: [new URL(url).host] })),
  )
  return {
    apply: (fault) => copyFileSync(join(packageRoot(), 'k8s', 'faults', fault), join(faults, fault)),
    remove: (fault) => rmSync(join(faults, fault)),
    shop,
    ask: async (query) => {
      const response = await fetch(`${prometheus.url}/api/v1/query?query=${encodeURIComponent(query)}`)
      const { data } = (await response.json()) as {
        readonly data: { readonly result: readonly { value: [number, string] }[] }
      }
      return Number(data.result[0]?.value[1] ?? NaN)
    },
    incident: async () => {
      const child = meshfever('incident', [
        ...['incident', ...PAIRS.flatMap(({ source, destination }) => ['--pair', `${source}:${destination}`])],
        ...['--incident-threshold', '4', '--clear-threshold', '2', '--accumulator-threshold', '2'],
        ...['--accumulator-max', '6', '--stale-after-seconds', '20', ...common],
      ])
      await child.waitForLine(listeningUrl)
      const seen: Evidence[] = []
      let lastLine: Readonly<Record<string, unknown>> = {}
      void child
        .waitForLine((line) => {
          if (!line.startsWith('{')) return undefined
          lastLine = JSON.parse(line) as typeof lastLine
          if (lastLine['msg'] === 'incident transition') seen.push(lastLine['evidence'] as Evidence)
          return undefined
        })
        .catch(() => undefined)
      return {
        packets: () => seen,
        packet: async (what, matches) => {
          const from = seen.length
          return until(what, () => seen.slice(from).find(matches))
        },
        quiet: async () => {
          await until('quiet', () => lastLine['temperature'] === 0 && lastLine['unknown'] === undefined)
        },
      }
    },
  }
}

/** Looks again and again; a fault takes a window and some polls to show. */
async function until<T>(what: string, look: () => T | Promise<T>): Promise<NonNullable<T>> {
  const endMs = performance.now() + 90_000
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== null && found !== false) return found
    assert.ok(performance.now() < endMs, `waited in vain for: ${what}`)
    await delay(100)
  }
}

const opened = ({ transition }: Evidence): boolean => transition === 'opened'
const resolved = ({ transition }: Evidence): boolean => transition === 'resolved'
const hot = ({ pairs }: Evidence): readonly string[] => pairs.flatMap((pair) => (pair.hot ? [pairName(pair)] : []))
const delayed = (evidence: Evidence, pair: string): string =>
  evidence.hints.find((hint) => hint.startsWith('fault injected: Envoy reports delays') && hint.endsWith(pair)) ?? ''

test('evidence: on a real mesh each scripted fault is named right', { timeout: 400_000 }, async (t) => {
  const mesh = await startMesh(t)
  const told: Evidence[] = []
  const tell = (evidence: Evidence): Evidence => {
    told.push(evidence)
    t.diagnostic(evidenceText(evidence).join('\n'))
    return evidence
  }
  // There must be a time before the first anomaly to compare with.
  await until('traffic in the past', async () => {
    const past = `sum(rate(istio_requests_total{destination_app="paymentservice"}[${WINDOW_SECONDS}s] offset ${2 * WINDOW_SECONDS}s)) > 0`
    return (await mesh.ask(past)) > 0
  })
  const daemon = await mesh.incident()
  await daemon.quiet()

  await t.test('a delay on one pair: the way between, with the injected fault', async () => {
    mesh.apply(CART_FAULT)
    const evidence = tell(await daemon.packet('the cart incident', opened))
    assert.deepEqual(hot(evidence), ['frontend -> cartservice'])
    assert.equal(evidence.severity, 2)
    const { suspect } = evidence
    assert.deepEqual(
      { ...suspect, because: '' },
      { kind: 'between', source: 'frontend', destination: 'cartservice', because: '' },
    )
    assert.match(suspect.because, /measured on both sides/)
    assert.match(suspect.because, /on it delays \(response_flags DI\) are injected into/)
    assert.notEqual(delayed(evidence, 'frontend -> cartservice'), '')
    const [pair] = evidence.pairs
    assert.ok((pair?.ratio ?? 0) > 5, `ratio ${pair?.ratio}`)
    assert.ok((pair?.requestsPerSecond ?? 0) > 1)
    assert.equal(pair?.firstAnomalousSeconds, pair?.course[0]?.[0])
  })

  // A replica that starts now has to find out from history.
  const replica = await mesh.incident()

  await t.test('delays on two pairs that share nothing: no suspect, both faults named', async () => {
    mesh.apply(PAYMENT_FAULT)
    const evidence = tell(await daemon.packet('a Sev 1', ({ severity }) => severity === 1))
    assert.equal(evidence.suspect.kind, 'none', evidence.suspect.because)
    assert.notEqual(delayed(evidence, 'frontend -> cartservice'), '')
    assert.notEqual(delayed(evidence, 'checkoutservice -> paymentservice'), '')
    mesh.remove(CART_FAULT)
    mesh.remove(PAYMENT_FAULT)
    tell(await daemon.packet('the end', resolved))
    await daemon.quiet()
  })

  await t.test('a delay downstream: the way to it, not who waits for it', async () => {
    mesh.apply(PAYMENT_FAULT)
    const evidence = tell(await daemon.packet('both hot', ({ severity }) => severity === 1))
    assert.deepEqual(hot(evidence), ['checkoutservice -> paymentservice', 'frontend -> checkoutservice'])
    assert.deepEqual(
      { ...evidence.suspect, because: '' },
      { kind: 'between', source: 'checkoutservice', destination: 'paymentservice', because: '' },
    )
    assert.match(evidence.suspect.because, /frontend -> checkoutservice waits for it/)
    mesh.remove(PAYMENT_FAULT)
    await daemon.packet('the end', resolved)
    await daemon.quiet()
  })

  await t.test('a service that is slow itself: the service, by both sides', async () => {
    await mesh.shop(250)
    const evidence = tell(await daemon.packet('the slow cart', opened))
    assert.deepEqual({ ...evidence.suspect, because: '' }, { kind: 'service', name: 'cartservice', because: '' })
    assert.match(evidence.suspect.because, /both sides are slow, measured on both sides/)
    assert.deepEqual(
      evidence.hints.filter((hint) => hint.startsWith('fault injected')),
      [],
    )
  })

  await t.test('two replicas derive the same packets, byte for byte', async () => {
    const last = daemon.packets().at(-1)?.timestampSeconds ?? NaN
    await until('the replica', () => replica.packets().some(({ timestampSeconds }) => timestampSeconds >= last))
    const shared = replica.packets().filter(({ timestampSeconds }) => timestampSeconds <= last)
    assert.ok(shared.length >= 4, `${shared.length} packets`)
    const first = shared[0]?.timestampSeconds ?? NaN
    const own = daemon.packets().filter(({ timestampSeconds }) => timestampSeconds >= first && timestampSeconds <= last)
    assert.deepEqual(
      shared.map((packet) => JSON.stringify(packet)),
      own.map((packet) => JSON.stringify(packet)),
    )
  })
})
