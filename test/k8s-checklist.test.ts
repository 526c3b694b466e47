import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { type Container, containerOf, podOf, title, withField, type Workload } from './helpers/kubernetes-schemas.js'
import { findKustomize, type KubernetesObject, renderKustomization } from './helpers/kustomize.js'
import { packageRoot } from './helpers/package-root.js'
import { brokenControls } from './helpers/pod-security.js'

const ROOT = packageRoot()
const NAMESPACE = 'meshfever'

const kustomize = findKustomize()
const skip = kustomize.kind === 'missing' ? kustomize.reason : false
const rendered = (folder: string): Objects =>
  kustomize.kind === 'found' ? renderKustomization(kustomize, join(ROOT, folder)) : []

type Objects = readonly KubernetesObject[]
type Labels = Readonly<Record<string, string>>

/** Each holds daemons, and everything that they need. */
const FOLDERS = ['k8s', 'k8s/overlays/online-boutique', 'k8s/overlays/sock-shop', 'k8s/overlays/mesh'].map(
  (folder) => ({
    folder,
    objects: rendered(folder),
  }),
)

// Looking at objects -----------------------------------------------------------------------------------------------------------

const ofKind = (objects: Objects, ...kinds: readonly string[]): Objects =>
  objects.filter(({ kind }) => kinds.includes(kind))
const workloads = (objects: Objects): readonly Workload[] =>
  ofKind(objects, 'Deployment', 'StatefulSet') as readonly Workload[]
const policiesOf = (objects: Objects): readonly Policy[] => ofKind(objects, 'NetworkPolicy') as readonly Policy[]
const componentOf = ({ metadata }: KubernetesObject): string => metadata.labels?.['app.kubernetes.io/component'] ?? ''
const component = (objects: Objects, name: string): readonly Workload[] =>
  workloads(objects).filter((workload) => componentOf(workload) === name)

/** The titles of those of which it does not hold. */
const unless = <T extends KubernetesObject>(objects: readonly T[], holds: (object: T) => boolean): readonly string[] =>
  objects.filter((object) => !holds(object)).map(title)
const eachPod =
  (holds: (pod: Readonly<Record<string, unknown>>, container: Container) => boolean) => (objects: Objects) =>
    unless(workloads(objects), (workload) => holds(podOf(workload).spec, containerOf(workload)))

const at = (object: unknown, ...path: readonly string[]): unknown =>
  path.reduce<unknown>((node, key) => (node as Readonly<Record<string, unknown>> | undefined)?.[key], object)
const selects = (selector: Labels | undefined, labels: Labels): boolean =>
  Object.entries(selector ?? {}).every(([name, value]) => labels[name] === value)
const labelsOfPods = ({ spec }: Workload): Labels => spec.template.metadata.labels

/** In MiB. */
const mebibytes = (quantity: string | undefined): number => Number(/^(\d+)Mi$/.exec(quantity ?? '')?.[1])

// Changing them, to see that it is seen ----------------------------------------------------------------------------------------

type Change = (objects: Objects) => Objects

/** Sets a field of every object of a kind, or of a component. */
const set =
  (what: string, path: readonly string[], value: unknown): Change =>
  (objects) =>
    objects.map((object) =>
      object.kind === what ||
      (componentOf(object) === what && 'spec' in object && object.kind !== 'PodDisruptionBudget')
        ? withField(object, path, value)
        : object,
    )
const POD = ['spec', 'template', 'spec']
const inPods =
  (path: readonly string[], value: unknown): Change =>
  (objects) =>
    objects.map((object) => (workloads([object]).length > 0 ? withField(object, [...POD, ...path], value) : object))
const inContainers = (path: readonly string[], value: unknown): Change => inPods(['containers', '0', ...path], value)
const without =
  (kind: string, name?: string): Change =>
  (objects) =>
    objects.filter((object) => object.kind !== kind || (name !== undefined && object.metadata.name !== name))

// Who may talk to whom ---------------------------------------------------------------------------------------------------------

interface Peer {
  /** None: an address outside of the cluster. */
  readonly namespace?: string
  readonly labels: Labels
  /** By their names. */
  readonly ports?: Readonly<Record<string, number>>
}

interface Rule {
  readonly from?: readonly Side[]
  readonly to?: readonly Side[]
  readonly ports?: readonly { readonly port: number | string; readonly protocol?: string }[]
}

interface Side {
  readonly namespaceSelector?: { readonly matchLabels?: Labels }
  readonly podSelector?: { readonly matchLabels?: Labels }
  readonly ipBlock?: { readonly cidr: string; readonly except?: readonly string[] }
}

interface Policy extends KubernetesObject {
  readonly spec: {
    readonly podSelector: { readonly matchLabels?: Labels }
    readonly policyTypes: readonly ('Ingress' | 'Egress')[]
    readonly ingress?: readonly Rule[]
    readonly egress?: readonly Rule[]
  }
}

/** Whether the policies of one namespace let a pod of it be talked to, or talk, as the network plugins of Kubernetes decide. */
function mayTalk(
  policies: readonly Policy[],
  direction: 'Ingress' | 'Egress',
  pod: Peer,
  other: Peer,
  { port, protocol = 'TCP' }: { readonly port: number; readonly protocol?: string },
): boolean {
  const ofPod = policies.filter(
    ({ metadata, spec }) =>
      metadata.namespace === pod.namespace &&
      spec.policyTypes.includes(direction) &&
      selects(spec.podSelector.matchLabels, pod.labels),
  )
  if (ofPod.length === 0) return true
  const ports = (direction === 'Ingress' ? pod : other).ports ?? {}
  const isSide = ({ namespaceSelector, podSelector, ipBlock }: Side): boolean => {
    if (ipBlock !== undefined || other.namespace === undefined) return false // no policy here has one, which is a row of its own
    const inNamespace =
      namespaceSelector === undefined
        ? other.namespace === pod.namespace
        : selects(namespaceSelector.matchLabels, { 'kubernetes.io/metadata.name': other.namespace })
    return inNamespace && selects(podSelector?.matchLabels, other.labels)
  }
  return ofPod.some(({ spec }) =>
    ((direction === 'Ingress' ? spec.ingress : spec.egress) ?? []).some((rule) => {
      const sides = direction === 'Ingress' ? rule.from : rule.to
      const isPort = rule.ports?.some(
        (allowed) =>
          (allowed.protocol ?? 'TCP') === protocol &&
          (typeof allowed.port === 'number' ? allowed.port : ports[allowed.port]) === port,
      )
      return (sides?.some(isSide) ?? true) && (isPort ?? true)
    }),
  )
}

const daemon = (name: string, port: number): Peer => ({
  namespace: NAMESPACE,
  labels: { 'app.kubernetes.io/name': 'meshfever', 'app.kubernetes.io/component': name },
  ports: { metrics: port },
})
const MONITOR = daemon('monitor', 8080)
const INCIDENT = daemon('incident', 8083)
const PROMETHEUS: Peer = { namespace: 'istio-system', labels: { 'app.kubernetes.io/name': 'prometheus' } }
const OPERATORS_PROMETHEUS: Peer = { namespace: 'monitoring', labels: { 'app.kubernetes.io/name': 'prometheus' } }
const ALERTMANAGER: Peer = { namespace: 'monitoring', labels: { 'app.kubernetes.io/name': 'alertmanager' } }
const DNS: Peer = { namespace: 'kube-system', labels: { 'k8s-app': 'kube-dns' } }
const GATEWAY: Peer = { namespace: 'istio-system', labels: { app: 'istio-ingressgateway' } }
const APPLICATION: Peer = { namespace: 'boutique', labels: { app: 'frontend' } }
const IMPOSTOR: Peer = { namespace: 'boutique', labels: { 'app.kubernetes.io/name': 'prometheus' } }
const STRANGER: Peer = { namespace: NAMESPACE, labels: { app: 'shell' } }
const METADATA_SERVICE: Peer = { labels: {} }

const CONNECTIONS: readonly (readonly [string, Peer, 'Ingress' | 'Egress', Peer, number, boolean, string?])[] = [
  ['Prometheus scrapes a monitor', MONITOR, 'Ingress', PROMETHEUS, 8080, true],
  ['Prometheus scrapes an incident detector', INCIDENT, 'Ingress', PROMETHEUS, 8083, true],
  ['Prometheus reaches another port', MONITOR, 'Ingress', PROMETHEUS, 9229, false],
  ['what else is in Prometheus’s namespace', MONITOR, 'Ingress', GATEWAY, 8080, false],
  ['an application of the mesh', MONITOR, 'Ingress', APPLICATION, 8080, false],
  ['an application that calls itself Prometheus', INCIDENT, 'Ingress', IMPOSTOR, 8083, false],
  ['another pod of the namespace', INCIDENT, 'Ingress', STRANGER, 8083, false],
  ['another daemon', INCIDENT, 'Ingress', MONITOR, 8083, false],
  ['from outside', INCIDENT, 'Ingress', METADATA_SERVICE, 8083, false],
  ['a monitor asks Prometheus', MONITOR, 'Egress', PROMETHEUS, 9090, true],
  ['an incident detector asks Prometheus', INCIDENT, 'Egress', PROMETHEUS, 9090, true],
  ['a monitor asks for a name', MONITOR, 'Egress', DNS, 53, true, 'UDP'],
  ['a monitor asks for a long name', MONITOR, 'Egress', DNS, 53, true, 'TCP'],
  ['an incident detector asks for a name', INCIDENT, 'Egress', DNS, 53, true, 'UDP'],
  ['an incident detector tells Alertmanager', INCIDENT, 'Egress', ALERTMANAGER, 9093, true],
  ['a monitor tells Alertmanager', MONITOR, 'Egress', ALERTMANAGER, 9093, false],
  ['to an application', MONITOR, 'Egress', APPLICATION, 8080, false],
  ['to something else on Prometheus’s pod', MONITOR, 'Egress', PROMETHEUS, 8080, false],
  ['to the metadata service or the API server', INCIDENT, 'Egress', METADATA_SERVICE, 80, false],
  ['a stranger in the namespace is talked to', STRANGER, 'Ingress', APPLICATION, 80, false],
  ['a stranger in the namespace talks', STRANGER, 'Egress', DNS, 53, false, 'UDP'],
]

const wrongConnections = (objects: Objects): readonly string[] =>
  CONNECTIONS.filter(
    ([, pod, direction, other, port, allowed, protocol = 'TCP']) =>
      mayTalk(policiesOf(objects), direction, pod, other, { port, protocol }) !== allowed,
  ).map(([what, , , , , allowed]) => `${what}: ${allowed ? 'refused' : 'let through'}`)

/** Where a URL of a daemon leads: the namespace in the name of a Service, and the port. */
const leadsTo = (args: readonly string[], flag: string): readonly { namespace: string; port: number }[] =>
  args.flatMap((arg) => {
    const [, namespace = '', port] = new RegExp(`^--${flag}=http://[^.]+\\.([^.:]+):(\\d+)$`).exec(arg) ?? []
    return port === undefined ? [] : [{ namespace, port: Number(port) }]
  })

// The list ---------------------------------------------------------------------------------------------------------------------

interface Budget extends KubernetesObject {
  readonly spec: {
    readonly maxUnavailable?: number
    readonly minAvailable?: number
    readonly unhealthyPodEvictionPolicy?: string
    readonly selector: { readonly matchLabels: Labels }
  }
}

type Requirement = { readonly what: string } & (
  | {
      /** Why not, of everything that a folder renders; nothing when it is kept. */
      readonly broken: (objects: Objects) => readonly string[]
      /** Changes that break it, each. */
      readonly sees: readonly Change[]
    }
  /** A test elsewhere: its file, and words of its name. */
  | { readonly checkedBy: readonly [file: string, words: string] }
  /** Not done, on purpose. */
  | { readonly not: string }
)

const probe = (name: string, path: string, rest: Readonly<Record<string, number>>): Requirement => ({
  what: `${name} asks ${path}`,
  broken: eachPod((_pod, container) => {
    const wanted = { httpGet: { path, port: 'metrics' }, timeoutSeconds: 3, ...rest }
    return (
      JSON.stringify(Object.entries(container[name] ?? {}).sort()) === JSON.stringify(Object.entries(wanted).sort())
    )
  }),
  sees: [
    inContainers([name, 'httpGet', 'path'], '/metrics'),
    inContainers([name], undefined),
    inContainers([name, 'timeoutSeconds'], 1),
    inContainers([name, 'exec'], { command: ['true'] }),
  ],
})

const CHECKLIST: Readonly<Record<string, readonly Requirement[]>> = {
  'pods and their namespace': [
    {
      what: 'the namespace enforces the restricted profile, audits and warns by it',
      broken: (objects) =>
        ofKind(objects, 'Namespace').flatMap(({ metadata }) =>
          ['enforce', 'audit', 'warn'].filter(
            (mode) => metadata.labels?.[`pod-security.kubernetes.io/${mode}`] !== 'restricted',
          ),
        ),
      sees: [set('Namespace', ['metadata', 'labels', 'pod-security.kubernetes.io/enforce'], 'baseline')],
    },
    {
      what: 'each pod keeps each control of the profile',
      broken: (objects) => workloads(objects).flatMap((workload) => brokenControls(podOf(workload))),
      sees: [inPods(['securityContext', 'seccompProfile'], undefined), inPods(['hostNetwork'], true)],
    },
    {
      what: 'each control is seen to be broken',
      checkedBy: ['k8s-pod-security.test.ts', 'every control of the standard'],
    },
    {
      what: 'user and group are the image’s, by number',
      broken: eachPod(
        (pod) =>
          at(pod, 'securityContext', 'runAsUser') === 65532 && at(pod, 'securityContext', 'runAsGroup') === 65532,
      ),
      sees: [inPods(['securityContext', 'runAsUser'], 1000), inPods(['securityContext', 'runAsGroup'], undefined)],
    },
    {
      what: 'the root is read-only, and what is mounted, too',
      broken: eachPod(
        (_pod, { securityContext, volumeMounts = [] }) =>
          securityContext?.readOnlyRootFilesystem === true && volumeMounts.every(({ readOnly }) => readOnly === true),
      ),
      sees: [
        inContainers(['securityContext', 'readOnlyRootFilesystem'], undefined),
        inContainers(['volumeMounts'], [{ name: 'training', mountPath: '/training' }]),
      ],
    },
    {
      what: 'an account of its own, without a token, and no variables of the namespace’s Services',
      broken: (objects) => {
        const accounts = ofKind(objects, 'ServiceAccount')
        return [
          ...unless(accounts, (account) => account['automountServiceAccountToken'] === false),
          ...eachPod(
            (pod) =>
              pod['automountServiceAccountToken'] === false &&
              pod['enableServiceLinks'] === false &&
              accounts.some(({ metadata }) => metadata.name === pod['serviceAccountName']),
          )(objects),
        ]
      },
      sees: [
        inPods(['automountServiceAccountToken'], undefined),
        inPods(['enableServiceLinks'], undefined),
        inPods(['serviceAccountName'], 'default'),
        set('ServiceAccount', ['automountServiceAccountToken'], undefined),
      ],
    },
    {
      what: 'requests and limits, but for the CPU, and a heap that ends well below the memory',
      broken: eachPod((_pod, { resources: { requests, limits }, ...container }) => {
        const [options] = (container['env'] as readonly { name: string; value?: string }[]).filter(
          ({ name }) => name === 'NODE_OPTIONS',
        )
        const heap = Number(/^--max-old-space-size=(\d+)$/.exec(options?.value ?? '')?.[1])
        return (
          ['cpu', 'memory', 'ephemeral-storage'].every((name) => requests[name] !== undefined) &&
          Object.keys(limits).sort().join() === 'ephemeral-storage,memory' &&
          heap <= 0.65 * mebibytes(limits['memory']) &&
          mebibytes(limits['ephemeral-storage']) >= 2 * 50
        )
      }),
      sees: [
        inContainers(['resources', 'limits', 'cpu'], '1'),
        inContainers(['resources', 'limits', 'memory'], undefined),
        inContainers(['resources', 'limits', 'memory'], '128Mi'),
        inContainers(['resources', 'requests', 'ephemeral-storage'], undefined),
        inContainers(['env'], []),
      ],
    },
    {
      what: 'more time to end than the five seconds that it takes at worst',
      broken: eachPod((pod) => Number(pod['terminationGracePeriodSeconds']) >= 10),
      sees: [inPods(['terminationGracePeriodSeconds'], 5), inPods(['terminationGracePeriodSeconds'], undefined)],
    },
    { what: 'it ends within five seconds', checkedBy: ['processes.test.ts', 'ends with 0 within a second of'] },
    {
      what: 'ConfigMaps stay below 1 MiB',
      checkedBy: ['k8s.test.ts', 'training data is a copy of training/ that fits'],
    },
    { what: 'flags are accepted', checkedBy: ['k8s.test.ts', 'the program accepts the args of every Deployment'] },
    { what: 'a volume for state', not: 'there is none: what the daemons know they read from Prometheus again' },
    { what: 'the image by digest', not: 'no registry serves it: kustomization.yaml says where yours goes in' },
    { what: 'hostUsers: false', not: 'where the nodes have no user namespaces the pod would not start' },
  ],
  probes: [
    probe('startupProbe', '/healthz', { periodSeconds: 1, failureThreshold: 60 }),
    probe('livenessProbe', '/healthz', { periodSeconds: 10, failureThreshold: 3 }),
    probe('readinessProbe', '/readyz', { periodSeconds: 5 }),
    {
      what: 'nothing sleeps before the end: nobody balances load over the daemons',
      broken: eachPod((_pod, container) => container['lifecycle'] === undefined),
      sees: [inContainers(['lifecycle'], { preStop: { sleep: { seconds: 5 } } })],
    },
    { what: 'alive as long as Prometheus is away', checkedBy: ['processes.test.ts', 'outlives every weather'] },
    {
      what: 'ready once it was answered, and then for good',
      checkedBy: ['serve-daemon.test.ts', 'it is ready once Prometheus'],
    },
    {
      what: 'a pod that is not ready is scraped all the same: by pods, and not by Services',
      broken: (objects) => [
        ...unless(ofKind(objects, 'Service'), ({ spec }) => at(spec, 'publishNotReadyAddresses') === true),
        ...ofKind(objects, 'ServiceMonitor').map(title),
        ...unless(
          workloads(objects),
          ({ spec }) => spec.template.metadata.annotations?.['prometheus.io/scrape'] === 'true',
        ),
      ],
      sees: [
        (objects) => objects.map((object) => withField(object, ['spec', 'template', 'metadata', 'annotations'], {})),
      ],
    },
  ],
  network: [
    {
      what: 'who may talk to whom, and nobody else',
      broken: wrongConnections,
      sees: [
        without('NetworkPolicy'),
        ...['default-deny', 'prometheus', 'dns', 'alertmanager'].map((name) => without('NetworkPolicy', name)),
        set('NetworkPolicy', ['spec', 'podSelector'], {}),
        set('NetworkPolicy', ['spec', 'policyTypes'], ['Ingress']),
        set('NetworkPolicy', ['spec', 'ingress'], [{}]),
        set('NetworkPolicy', ['spec', 'egress'], [{ to: [{ namespaceSelector: {} }] }]),
      ],
    },
    {
      what: 'Prometheus is let through where the flags say that it is',
      broken: (objects) =>
        unless(workloads(objects), (workload) => {
          const places = leadsTo(containerOf(workload).args, 'prometheus-url')
          const pod: Peer = { namespace: NAMESPACE, labels: labelsOfPods(workload) }
          const isLetThrough = ({ namespace, port }: { readonly namespace: string; readonly port: number }): boolean =>
            mayTalk(policiesOf(objects), 'Egress', pod, { ...PROMETHEUS, namespace }, { port })
          return places.length === 1 && places.every(isLetThrough)
        }),
      sees: [inContainers(['args'], ['--prometheus-url=http://prometheus.monitoring:9090'])],
    },
    {
      what: 'a range of addresses leaves out the link-local ones',
      broken: (objects) =>
        unless(policiesOf(objects), ({ spec }) =>
          [
            ...(spec.ingress ?? []).flatMap(({ from = [] }) => from),
            ...(spec.egress ?? []).flatMap(({ to = [] }) => to),
          ].every(({ ipBlock }) => ipBlock === undefined || ipBlock.except?.includes('169.254.0.0/16') === true),
        ),
      sees: [set('NetworkPolicy', ['spec', 'egress'], [{ to: [{ ipBlock: { cidr: '0.0.0.0/0' } }] }])],
    },
    { what: 'a pod that must fail to connect', not: 'needs a cluster: network-policies.yaml says how to try' },
  ],
  'drains, rollouts and places': [
    {
      what: 'each pod has one budget, which holds up no drain for ever',
      broken: (objects) => {
        const budgets = ofKind(objects, 'PodDisruptionBudget') as readonly Budget[]
        return [
          ...unless(
            budgets,
            ({ spec }) =>
              spec.maxUnavailable === 1 &&
              spec.minAvailable === undefined &&
              spec.unhealthyPodEvictionPolicy === 'AlwaysAllow',
          ),
          ...unless(
            workloads(objects),
            (workload) =>
              budgets.filter(({ spec }) => selects(spec.selector.matchLabels, labelsOfPods(workload))).length === 1,
          ),
        ]
      },
      sees: [
        without('PodDisruptionBudget'),
        set('PodDisruptionBudget', ['spec', 'maxUnavailable'], 0),
        set('PodDisruptionBudget', ['spec', 'minAvailable'], 1),
        set('PodDisruptionBudget', ['spec', 'unhealthyPodEvictionPolicy'], undefined),
        set('PodDisruptionBudget', ['spec', 'selector', 'matchLabels'], { 'app.kubernetes.io/name': 'meshfever' }),
      ],
    },
    {
      what: 'one monitor of a pair: the old one goes first',
      broken: (objects) =>
        unless(component(objects, 'monitor'), ({ kind, spec }) =>
          kind === 'StatefulSet'
            ? at(spec, 'podManagementPolicy') === 'Parallel'
            : at(spec, 'replicas') === 1 && at(spec, 'strategy', 'type') === 'Recreate',
        ),
      sees: [
        (objects) =>
          set(
            'StatefulSet',
            ['spec', 'podManagementPolicy'],
            'OrderedReady',
          )(set('monitor', ['spec', 'replicas'], 2)(objects)),
      ],
    },
    {
      what: 'a shard knows by its pod’s name which it is',
      checkedBy: ['mesh-overlay.test.ts', 'the program accepts the args of every pod by its name'],
    },
    {
      what: 'two incident detectors, of which one is always there',
      broken: (objects) =>
        unless(
          component(objects, 'incident'),
          ({ spec }) =>
            at(spec, 'replicas') === 2 &&
            at(spec, 'strategy', 'type') === 'RollingUpdate' &&
            at(spec, 'strategy', 'rollingUpdate', 'maxUnavailable') === 0 &&
            at(spec, 'strategy', 'rollingUpdate', 'maxSurge') === 1,
        ),
      sees: [
        set('incident', ['spec', 'replicas'], 1),
        set('incident', ['spec', 'strategy'], { type: 'Recreate' }),
        set('incident', ['spec', 'strategy', 'rollingUpdate', 'maxUnavailable'], 1),
      ],
    },
    {
      what: 'a node that is lost takes not all of them with it, and one node is enough to start',
      broken: (objects) =>
        unless(workloads(objects), (workload) => {
          const [spread, ...more] = (podOf(workload).spec['topologySpreadConstraints'] ?? []) as readonly Readonly<
            Record<string, unknown>
          >[]
          return (
            more.length === 0 &&
            spread?.['maxSkew'] === 1 &&
            spread['topologyKey'] === 'kubernetes.io/hostname' &&
            spread['whenUnsatisfiable'] === 'ScheduleAnyway' &&
            selects(at(spread, 'labelSelector', 'matchLabels') as Labels, labelsOfPods(workload))
          )
        }),
      sees: [
        inPods(['topologySpreadConstraints'], undefined),
        inPods(['topologySpreadConstraints', '0', 'whenUnsatisfiable'], 'DoNotSchedule'),
        inPods(['topologySpreadConstraints', '0', 'labelSelector', 'matchLabels'], { app: 'other' }),
      ],
    },
    {
      what: 'above what is watched, and at nobody’s cost',
      broken: (objects) => {
        const classes = ofKind(objects, 'PriorityClass')
        return [
          ...unless(
            classes,
            ({ value, preemptionPolicy }) => Number(value) > 0 && Number(value) < 1e9 && preemptionPolicy === 'Never',
          ),
          ...eachPod((pod) => classes.some(({ metadata }) => metadata.name === pod['priorityClassName']))(objects),
        ]
      },
      sees: [
        inPods(['priorityClassName'], undefined),
        set('PriorityClass', ['value'], 0),
        set('PriorityClass', ['preemptionPolicy'], undefined),
      ],
    },
    { what: 'as many pods as shards', checkedBy: ['mesh-overlay.test.ts', 'there are as many pods as the flag says'] },
    {
      what: 'alerts on meshfever itself, a dead man’s among them',
      checkedBy: ['prometheus-rules.test.ts', 'Watchdog'],
    },
    { what: 'an alert on restarts', not: 'they are not ours to count: kube-state-metrics and its rules do' },
    {
      what: 'an alert on notifications that fail',
      not: 'it would take the way that fails: the dead man’s switch tells',
    },
  ],
  'two incident detectors': [
    {
      what: 'the same flags, and so the same labels: nothing tells a replica from another',
      broken: (objects) =>
        unless(
          component(objects, 'incident'),
          (workload) =>
            !JSON.stringify(containerOf(workload)).includes('fieldRef') &&
            !/hostname/i.test(containerOf(workload).args.join()),
        ),
      sees: [inContainers(['env', '0', 'valueFrom'], { fieldRef: { fieldPath: 'metadata.name' } })],
    },
    {
      what: 'one notification of them',
      checkedBy: ['k8s-incident-replicas.test.ts', 'one notification per transition'],
    },
    {
      what: 'also where one says it later than the other',
      checkedBy: ['alert-end-to-end.test.ts', 'two replicas, the second one'],
    },
    {
      what: 'a cold one resolves nothing, and a blind one says nothing',
      checkedBy: ['alertmanager.test.ts', 'a replica that never saw the incident open resolves nothing'],
    },
    { what: 'the same evidence', checkedBy: ['incident-detector.test.ts', 'replicas that started at different times'] },
    {
      what: 'two monitors of one pair are not added up',
      checkedBy: ['anomaly-history.test.ts', 'labels called __proto__ or constructor tell replicas apart'],
    },
    {
      what: 'alerts take the max',
      checkedBy: ['prometheus-rules.test.ts', 'nothing but the watchdog fires with two replicas'],
    },
    { what: 'a Lease', not: 'needs a token and rights; two that say the same need no leader' },
  ],
  image: [
    { what: 'its rules, by the Dockerfile', checkedBy: ['dockerfile.test.ts', 'the image keeps its rules'] },
    { what: 'a number as the user', checkedBy: ['dockerfile.test.ts', 'a numeric user that is not root'] },
    { what: 'built and run, its files and its size', checkedBy: ['../scripts/image-check.ts', 'function checkFiles'] },
    { what: 'an SBOM of what is in it', checkedBy: ['../scripts/image-check.ts', 'function checkSbom'] },
    { what: 'signed, with provenance', not: 'no registry serves it: whoever pushes it signs it' },
  ],
}

// Tests ------------------------------------------------------------------------------------------------------------------------

for (const [part, requirements] of Object.entries(CHECKLIST)) {
  for (const requirement of requirements) {
    if ('not' in requirement) continue
    if ('checkedBy' in requirement) {
      const [file, words] = requirement.checkedBy
      test(`k8s checklist, ${part}: ${requirement.what} (${file})`, () => {
        assert(readFileSync(join(ROOT, 'test', file), 'utf8').includes(words), `${file} has no test "${words}"`)
      })
      continue
    }
    const { what, broken, sees } = requirement
    test(`k8s checklist, ${part}: ${what}`, { skip }, () => {
      for (const { folder, objects } of FOLDERS) {
        assert.deepEqual(broken(objects), [], folder)
        for (const [i, change] of sees.entries())
          assert.notDeepEqual(broken(change(objects)), [], `${folder}: change ${i}`)
      }
    })
  }
}

test(
  'k8s checklist: beside the base, the PodMonitor’s overlay lets the operator’s Prometheus through, and nobody else',
  { skip },
  () => {
    const base = rendered('k8s')
    const both = [...base, ...rendered('k8s/overlays/podmonitor')]
    for (const [pod, port] of [
      [MONITOR, 8080],
      [INCIDENT, 8083],
    ] as const) {
      for (const [direction, to] of [
        ['Ingress', port],
        ['Egress', 9090],
      ] as const) {
        const may = (objects: Objects): boolean =>
          mayTalk(policiesOf(objects), direction, pod, OPERATORS_PROMETHEUS, { port: to })
        assert.deepEqual([may(base), may(both)], [false, true], direction)
      }
    }
    assert.deepEqual(wrongConnections(both), [])
  },
)
