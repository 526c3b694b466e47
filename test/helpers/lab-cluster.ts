import type { TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'

import pino from 'pino'
import { stringify } from 'yaml'

import type { Experiment, Fault, KubernetesSettings } from '../../src/experiment/experiment-file.js'
import type { KubernetesLimits } from '../../src/experiment/kubernetes-limits.js'
import type { KubernetesObject } from '../../src/experiment/kubernetes-objects.js'
import { kubernetesTarget } from '../../src/experiment/kubernetes-target.js'
import type { Stage } from '../../src/experiment/target.js'
import { systemClock } from '../../src/io/clock.js'
import { createHttp } from '../../src/io/http-client.js'
import type { Runtime } from '../../src/io/runtime.js'
import { type ApiServer, startApiServer } from './api-server.js'
import { fakeRuntime, vectorAnswer } from './fake-runtime.js'
import { startHttpServer } from './local-server.js'
import { temporaryFile } from './temporary-folder.js'

/** A cluster with Istio, Prometheus and an empty namespace `boutique`, and an experiment for it. */
export interface LabCluster {
  readonly api: ApiServer
  readonly settings: KubernetesSettings
  readonly experiment: Experiment
  readonly logged: readonly Readonly<Record<string, unknown>>[]
  readonly runtime: Runtime
  /** As Ctrl-C does. */
  readonly stop: () => void
  /** What Prometheus answers; by default there is every metric, and latency follows the faults. */
  answer: (query: string) => string | undefined
  /** Whether the delay of a fault that is applied shows in latency. */
  delays: boolean
  /** Starts the target; the stage is closed when the test ends. */
  readonly start: (overrides?: {
    readonly settings?: Partial<KubernetesSettings>
    readonly experiment?: Partial<Experiment>
    readonly confirmedContext?: string | null
    readonly limits?: Partial<KubernetesLimits>
    readonly environment?: Readonly<Record<string, string>>
  }) => Promise<Stage>
  /** Names of what is there and was not when the test began. */
  readonly added: () => readonly string[]
}

/** A Deployment, as the manifests of an application have it. */
export function deploymentManifest(name: string, labels: Readonly<Record<string, string>>): KubernetesObject {
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name },
    spec: {
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: { containers: [{ name: 'server', image: `registry.test/${name}:1` }] } },
    },
  }
}

/** Online Boutique in little: one of its pods has no label `app`, and it brings users and a public address along. */
export const MANIFEST: readonly KubernetesObject[] = [
  deploymentManifest('frontend', { app: 'frontend' }),
  { apiVersion: 'v1', kind: 'Service', metadata: { name: 'frontend' }, spec: { ports: [{ port: 80 }] } },
  { apiVersion: 'v1', kind: 'Service', metadata: { name: 'frontend-external' }, spec: { ports: [{ port: 80 }] } },
  deploymentManifest('cartservice', { name: 'cartservice' }),
  deploymentManifest('loadgenerator', { app: 'loadgenerator' }),
]

export function delayOf(source: string, destination: string, options: { name?: string; label?: string } = {}): Fault {
  const { name = `${source}-${destination}-delay`, label = 'app' } = options
  const manifest = {
    apiVersion: 'networking.istio.io/v1',
    kind: 'VirtualService',
    metadata: { name },
    spec: {
      hosts: [destination],
      http: [
        {
          match: [{ sourceLabels: { [label]: source } }],
          fault: { delay: { fixedDelay: '200ms', percentage: { value: 100 } } },
          route: [{ destination: { host: destination } }],
        },
        { route: [{ destination: { host: destination } }] },
      ],
    },
  }
  return {
    name: 'cart delay',
    fromSeconds: 0,
    toSeconds: 60,
    pairs: [{ source, destination }],
    manifest: JSON.stringify(manifest),
    delayMs: 200,
    percent: 100,
  }
}

export const CART_DELAY = delayOf('frontend', 'cartservice')

/** Short ones. */
const LIMITS: Partial<KubernetesLimits> = {
  pollMs: 50,
  watchMs: 100,
  hopelessMs: 0,
  readyMs: 20_000,
  forwardMs: 20_000,
  graceMs: 300,
}

/**
 * @param options.installed - whether the application is there already, and not to be installed
 * @param options.prometheusPort - of a Prometheus to stand behind the port-forward in the place of the faked one
 */
export async function startLabCluster(
  t: TestContext,
  options: {
    readonly istio?: boolean
    readonly namespace?: boolean
    readonly installed?: boolean
    readonly prometheusPort?: number
  } = {},
): Promise<LabCluster> {
  const { istio = true, namespace = true, installed = false, prometheusPort } = options
  const stages: Stage[] = []
  // Before the server is gone: what is begun first is ended first.
  t.after(() => Promise.allSettled(stages.map((stage) => stage.close())))
  const prometheus = await startHttpServer(t, (request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://prometheus')
    if (pathname === '/-/ready') response.end('ready')
    else response.end(lab.answer(searchParams.get('query') ?? '') ?? usualAnswer(searchParams.get('query') ?? ''))
  })
  const api = await startApiServer(t, { istio, forwardTo: () => prometheusPort ?? prometheus.port })
  for (const object of surroundings(namespace)) api.put(object)
  if (installed) for (const app of ['frontend', 'cartservice']) api.put(installedPod(app))
  const before = new Set(api.objects().map(nameOf))

  /** One value for everything; a latency of 5 ms, and 205 while a VirtualService is applied. */
  const usualAnswer = (query: string): string => {
    const faulty = lab.delays && api.objects().some(({ kind }) => kind === 'VirtualService')
    return vectorAnswer([{ metric: {}, value: query.includes('milliseconds_sum') ? (faulty ? '205' : '5') : '1' }])
  }

  const fake = fakeRuntime([''])
  const logged: Readonly<Record<string, unknown>>[] = []
  const runtime: Runtime = {
    ...fake,
    clock: systemClock,
    http: createHttp(),
    logger: pino(
      { base: null },
      { write: (line: string) => void logged.push(JSON.parse(line) as Readonly<Record<string, unknown>>) },
    ),
  }
  const settings: KubernetesSettings = {
    context: api.context,
    namespace: 'boutique',
    manifests: installed
      ? []
      : [temporaryFile(t, MANIFEST.map((object) => stringify(object)).join('---\n'), 'app.yaml')],
    chart: null,
    prometheus: { namespace: 'istio-system', service: 'prometheus', port: 9090 },
    loadGenerator: { tool: 'locust', image: 'locustio/locust:9' },
    frontendUrl: 'http://frontend',
  }
  const experiment: Experiment = {
    name: 'test',
    description: '',
    target: { kind: 'kubernetes', settings },
    application: 'online-boutique',
    seed: 1,
    pairs: [{ source: 'frontend', destination: 'cartservice', accumulatorThreshold: 5 }],
    trainingSeconds: 60,
    observedSeconds: 60,
    load: { steps: [{ fromUsers: 5, toUsers: 5 }], stepSeconds: 60, transients: [] },
    spawnRate: 10,
    waitSeconds: { min: 1, max: 2 },
    faults: [CART_DELAY],
    scrapeIntervalSeconds: 1,
    queryWindowSeconds: 0.5,
    pollIntervalSeconds: 1,
    recordStepSeconds: 1,
    model: 'load-and-season',
    incident: { incidentThreshold: 10, clearThreshold: 5, coolBy: 2, accumulatorMax: 20, noDataTimeoutSeconds: 600 },
    expected: { severity: null },
  }
  const lab: LabCluster = {
    api,
    settings,
    experiment,
    logged,
    runtime,
    stop: fake.stop,
    answer: () => undefined,
    delays: true,
    start: async (overrides = {}) => {
      const { environment = api.environment, confirmedContext = api.context, limits = {} } = overrides
      const target = kubernetesTarget(
        { ...runtime, program: { ...runtime.program, environment } },
        { settings: { ...settings, ...overrides.settings }, confirmedContext, limits: { ...LIMITS, ...limits } },
      )
      const stage = await target.start({ ...experiment, ...overrides.experiment })
      stages.push(stage)
      return stage
    },
    added: () =>
      api
        .objects()
        .map(nameOf)
        .filter((name) => !before.has(name)),
  }
  return lab
}

function nameOf({ kind, metadata }: KubernetesObject): string {
  return `${kind} ${metadata.namespace === undefined ? '' : `${metadata.namespace}/`}${metadata.name}`
}

/** A native sidecar runs as an init container. */
function installedPod(app: string): KubernetesObject {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: app, namespace: 'boutique', labels: { app } },
    spec: { containers: [{ name: 'server' }], initContainers: [{ name: 'istio-proxy', restartPolicy: 'Always' }] },
    status: { conditions: [{ type: 'Ready', status: 'True' }] },
  }
}

function surroundings(namespace: boolean): readonly KubernetesObject[] {
  const inIstio = { namespace: 'istio-system' }
  const prometheusPod = {
    spec: { containers: [{ name: 'prometheus', ports: [{ containerPort: 9090 }] }] },
    status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] },
  }
  return [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'istio-system' } },
    ...(namespace
      ? [
          {
            apiVersion: 'v1',
            kind: 'Namespace',
            metadata: { name: 'boutique', labels: { 'istio-injection': 'enabled' } },
          },
        ]
      : []),
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'istiod', ...inIstio, labels: { app: 'istiod' }, generation: 3 },
      spec: { template: { spec: { containers: [{ name: 'discovery', image: 'docker.io/istio/pilot:1.24.1' }] } } },
      status: { observedGeneration: 3, readyReplicas: 1 },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'prometheus', ...inIstio },
      spec: { selector: { app: 'prometheus' }, ports: [{ port: 9090, targetPort: 9090 }] },
    },
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'prometheus-0', ...inIstio, labels: { app: 'prometheus' } },
      ...prometheusPod,
    },
  ]
}

export const labelled = (object: KubernetesObject | undefined): Readonly<Record<string, string>> =>
  object?.metadata.labels ?? {}

/** The object of a kind with a name like this. */
export const there = ({ api }: LabCluster, kind: string, name: RegExp): KubernetesObject | undefined =>
  api.objects().find((object) => object.kind === kind && name.test(object.metadata.name))

const PATIENCE_MS = 90_000

/** Waits for a line of the log. */
export async function logLine({ logged }: LabCluster, message: string): Promise<Readonly<Record<string, unknown>>> {
  const untilMs = performance.now() + PATIENCE_MS
  for (;;) {
    const line = logged.find(({ msg }) => msg === message)
    if (line !== undefined) return line
    if (performance.now() > untilMs) throw new Error(`never logged: ${message}`)
    await delay(10)
  }
}

/** Rejects as the stage fails, or when it does not. */
export function failureOf({ failed }: Stage): Promise<never> {
  const never = delay(PATIENCE_MS, undefined, { ref: false }).then(() => Promise.reject(new Error('it never failed')))
  return Promise.race([failed, never])
}

/** A VirtualService without a fault. */
export const virtualService = (name: string, namespace: string, host: string): KubernetesObject => ({
  apiVersion: 'networking.istio.io/v1',
  kind: 'VirtualService',
  metadata: { name, namespace },
  spec: { hosts: [host], http: [{ route: [{ destination: { host } }] }] },
})
