import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { stringify } from 'yaml'

import { StartError, UsageError } from '../src/core/errors.js'
import type { KubernetesObject } from '../src/experiment/kubernetes-objects.js'
import { loadProfileJson } from '../src/testbed/load-profile.js'
import {
  CART_DELAY,
  deploymentManifest,
  type LabCluster,
  labelled,
  logLine,
  startLabCluster,
  there,
  virtualService,
} from './helpers/lab-cluster.js'
import { startHttpServer } from './helpers/local-server.js'
import { temporaryFile, temporaryFolder } from './helpers/temporary-folder.js'

const skip = spawnSync('kubectl', ['version', '--client']).status === 0 ? false : 'kubectl is not on the PATH'

const DEPLOYMENTS = '/apis/apps/v1/namespaces/boutique/deployments'
const VIRTUAL_SERVICES = '/apis/networking.istio.io/v1/namespaces/boutique/virtualservices'
const FORWARD = '/api/v1/namespaces/istio-system/pods/prometheus-0/portforward'
const REVIEWS = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews'

/** Requests that change the cluster, the run's id left out of names. Access reviews and port-forwards change nothing. */
const changes = ({ api }: LabCluster): readonly string[] =>
  api
    .writes()
    .filter((request) => ![REVIEWS, FORWARD].some((path) => request.endsWith(path)))
    .map(withoutRun)
const withoutRun = (text: string): string => text.replace(/meshfever-load-r[0-9a-z]+-/, 'meshfever-load-RUN-')

// A whole run ---------------------------------------------------------------------------------------------------------------------

test(
  'kubernetes: a run asks, installs, loads, disturbs, and leaves the cluster as it was, request by request',
  { skip },
  async (t) => {
    const lab = await startLabCluster(t)
    const { api, experiment } = lab
    const stage = await lab.start()
    assert.deepEqual(stage.versions, {
      kubernetes: 'v1.32.4',
      istio: '1.24.1',
      application: lab.settings.manifests[0],
      load: 'locustio/locust:9',
    })
    assert.equal(stage.metrics.kind, 'prometheus')

    const frontend = there(lab, 'Deployment', /^frontend$/)
    const run = labelled(frontend)['meshfever-run'] ?? ''
    assert.match(run, /^r[0-9a-z]{8,}$/)
    for (const object of [frontend, there(lab, 'Service', /^frontend$/), there(lab, 'Deployment', /^cartservice$/)]) {
      const labels = labelled(object)
      assert.deepEqual(
        [labels['app.kubernetes.io/managed-by'], labels['meshfever-run'], labels['meshfever-part']],
        ['meshfever-experiment', run, 'application'],
      )
    }
    // Upstream's cartservice has no label app here; Istio's metrics and the faults go by it.
    assert.equal(labelled(there(lab, 'Pod', /^cartservice-/))['app'], 'cartservice')
    assert.deepEqual(
      lab.logged.filter(({ msg }) => msg === 'left out').map(({ object }) => object),
      ['service/frontend-external', 'deployment/loadgenerator'],
    )

    await stage.applyLoad(experiment.load)
    const config = there(lab, 'ConfigMap', /^meshfever-load-/)?.['data'] as Readonly<Record<string, string>>
    assert.deepEqual(
      JSON.parse(config['profile.json'] ?? ''),
      loadProfileJson({ shape: experiment.load, spawnRate: 10, waitSeconds: { min: 1, max: 2 } }),
    )
    await logLine(lab, 'metrics seen')

    await stage.applyFault(CART_DELAY)
    const fault = there(lab, 'VirtualService', /./)
    assert.equal(labelled(fault)['meshfever-run'], run)
    assert.deepEqual(fault?.['spec'], (JSON.parse(CART_DELAY.manifest) as KubernetesObject)['spec'])
    const { meanLatenciesMs } = await logLine(lab, 'fault took effect')
    assert.deepEqual(meanLatenciesMs, { 'frontend -> cartservice': 205 })
    await stage.removeFault(CART_DELAY)
    assert.equal(there(lab, 'VirtualService', /./), undefined)

    // The observation's load takes the place of the training's.
    await stage.applyLoad({ ...experiment.load, transients: [{ fromSeconds: 1, toSeconds: 2, users: 3 }] })
    await stage.close()
    assert.deepEqual(lab.added(), [])

    assert.deepEqual(changes(lab), [
      `POST ${DEPLOYMENTS}`,
      'POST /api/v1/namespaces/boutique/services',
      `POST ${DEPLOYMENTS}`,
      'POST /api/v1/namespaces/boutique/configmaps',
      `POST ${DEPLOYMENTS}`,
      `POST ${VIRTUAL_SERVICES}`,
      `DELETE ${VIRTUAL_SERVICES}/frontend-cartservice-delay`,
      'POST /api/v1/namespaces/boutique/configmaps',
      `POST ${DEPLOYMENTS}`,
      'DELETE /api/v1/namespaces/boutique/configmaps/meshfever-load-RUN-1',
      `DELETE ${DEPLOYMENTS}/meshfever-load-RUN-1`,
      'DELETE /api/v1/namespaces/boutique/configmaps/meshfever-load-RUN-2',
      `DELETE ${DEPLOYMENTS}/meshfever-load-RUN-2`,
      `DELETE ${DEPLOYMENTS}/frontend`,
      `DELETE ${DEPLOYMENTS}/cartservice`,
      'DELETE /api/v1/namespaces/boutique/services/frontend',
    ])
    // Everything is looked at before anything is changed.
    const firstChange = api.requests.indexOf(`POST ${DEPLOYMENTS}`)
    const looks = api.requests.slice(0, firstChange)
    assert.equal(looks.filter((request) => request === `POST ${REVIEWS}`).length, 10)
    assert.deepEqual(
      looks.filter((request) => request !== `POST ${REVIEWS}`),
      [
        'GET /apis/apps/v1/deployments',
        'GET /api/v1/namespaces/boutique',
        `GET ${DEPLOYMENTS}`,
        'GET /api/v1/namespaces/boutique/configmaps',
        `GET ${VIRTUAL_SERVICES}`,
        `GET ${DEPLOYMENTS}/frontend`,
        'GET /api/v1/namespaces/boutique',
        'GET /api/v1/namespaces/boutique/services/frontend',
        'GET /api/v1/namespaces/boutique',
        `GET ${DEPLOYMENTS}/cartservice`,
        'GET /api/v1/namespaces/boutique',
        'GET /apis/networking.istio.io/v1/virtualservices',
        'GET /api/v1/namespaces/istio-system/services/prometheus',
      ],
    )
    const requests = api.requests.length
    await stage.close()
    assert.equal(api.requests.length, requests)
  },
)

test(
  'kubernetes: a namespace that is not there is created with injection, and is gone afterwards',
  { skip },
  async (t) => {
    const lab = await startLabCluster(t, { namespace: false })
    // From an address, as the applications' own manifests are.
    const web = await startHttpServer(t, (_, response) => response.end(readFileSync(lab.settings.manifests[0] ?? '')))
    const stage = await lab.start({ settings: { manifests: [`${web.url}/app.yaml`] } })
    assert.equal(labelled(there(lab, 'Namespace', /^boutique$/))['istio-injection'], 'enabled')
    await stage.close()
    assert.deepEqual(lab.added(), [])
    assert.equal(changes(lab)[0], 'POST /api/v1/namespaces')
    assert.equal(changes(lab).at(-1), 'DELETE /api/v1/namespaces/boutique')
  },
)

test("kubernetes: a namespace of ours is left when somebody else's objects would go with it", { skip }, async (t) => {
  const lab = await startLabCluster(t, { namespace: false })
  const stage = await lab.start()
  lab.api.put({
    ...deploymentManifest('theirs', { app: 'theirs' }),
    metadata: { name: 'theirs', namespace: 'boutique' },
  })
  await stage.close()
  assert.deepEqual(lab.added(), ['Namespace boutique', 'Deployment boutique/theirs'])
  const { objects, remove } = await logLine(lab, 'namespace left: somebody else has put objects into it')
  assert.deepEqual([objects, remove], [['deployment/theirs'], 'kubectl --context lab delete namespace boutique'])
})

test('kubernetes: a chart is rendered by Helm, and then treated as manifests are', { skip }, async (t) => {
  const lab = await startLabCluster(t)
  const folder = temporaryFolder(t)
  const chart = [
    deploymentManifest('frontend', { app: 'frontend' }),
    deploymentManifest('cartservice', { app: 'cartservice' }),
  ]
  const rendered = temporaryFile(t, chart.map((object) => stringify(object)).join('---\n'))
  writeFileSync(join(folder, 'helm'), `#!/bin/sh\necho "$@" > ${folder}/args\ncat ${rendered}\n`, { mode: 0o755 })
  const { PATH = '' } = lab.api.environment
  const stage = await lab.start({
    settings: {
      manifests: [],
      chart: { name: 'onlineboutique', repository: 'https://charts.test', version: '0.10.2' },
    },
    environment: { ...lab.api.environment, PATH: `${folder}:${PATH}` },
  })
  assert.equal(
    readFileSync(join(folder, 'args'), 'utf8'),
    'template meshfever onlineboutique --namespace boutique --repo https://charts.test --version 0.10.2\n',
  )
  assert.equal(stage.versions['application'], 'onlineboutique 0.10.2')
  assert.equal(
    labelled(there(lab, 'Deployment', /^cartservice$/))['app.kubernetes.io/managed-by'],
    'meshfever-experiment',
  )
  await stage.close()
  assert.deepEqual(lab.added(), [])
})

test('kubernetes: an application that is there is used as it is, and stays', { skip }, async (t) => {
  const lab = await startLabCluster(t, { installed: true })
  const stage = await lab.start()
  await stage.applyLoad(lab.experiment.load)
  await stage.close()
  assert.deepEqual(lab.added(), [])
  assert.deepEqual(changes(lab), [
    'POST /api/v1/namespaces/boutique/configmaps',
    `POST ${DEPLOYMENTS}`,
    'DELETE /api/v1/namespaces/boutique/configmaps/meshfever-load-RUN-1',
    `DELETE ${DEPLOYMENTS}/meshfever-load-RUN-1`,
  ])
})

// Refusals ------------------------------------------------------------------------------------------------------------------------

for (const { name, confirmedContext, context = 'lab', message } of [
  {
    name: 'a context that is not confirmed',
    confirmedContext: null,
    message:
      /^this would install and disturb an application on the cluster of context lab \(http:\/\/127\.0\.0\.1:\d+, namespace boutique\): add --confirm-context lab if that is meant$/,
  },
  {
    name: 'a confirmation of another context',
    confirmedContext: 'elsewhere',
    message: /^--confirm-context is "elsewhere", and the experiment is for the context "lab"$/,
  },
  {
    name: 'an unknown context',
    confirmedContext: 'prod',
    context: 'prod',
    message: /^there is no context "prod" in the kubeconfig; it has elsewhere, lab$/,
  },
]) {
  test(`kubernetes: ${name} is refused, and nothing is sent anywhere`, { skip }, async (t) => {
    const lab = await startLabCluster(t)
    await assert.rejects(lab.start({ confirmedContext, settings: { context } }), { name: 'UsageError', message })
    assert.deepEqual(lab.api.requests, [])
  })
}

test('kubernetes: without kubectl the error says how to get it', async (t) => {
  const lab = await startLabCluster(t)
  const environment = { ...lab.api.environment, PATH: temporaryFolder(t) }
  await assert.rejects(lab.start({ environment }), {
    name: 'StartError',
    message:
      /^kubectl is needed and was not found: put it on the PATH \(https:\S+\), or apt-get install kubernetes-client/,
  })
})

test('kubernetes: a cluster that does not answer is named', { skip }, async (t) => {
  const lab = await startLabCluster(t)
  await assert.rejects(lab.start({ settings: { context: 'elsewhere' }, confirmedContext: 'elsewhere' }), {
    name: 'StartError',
    message:
      /^the cluster of context elsewhere does not answer: kubectl --context elsewhere version --output=json: .*127\.0\.0\.1:1 was refused/,
  })
})

interface Refusal {
  readonly name: string
  readonly istio?: boolean
  readonly namespace?: boolean
  readonly prepare?: (lab: LabCluster) => void
  readonly overrides?: Parameters<LabCluster['start']>[0]
  readonly error?: typeof UsageError | typeof StartError
  readonly message: RegExp
}

const REFUSALS: readonly Refusal[] = [
  {
    name: 'a cluster without Istio',
    istio: false,
    message: /^there is no Istio on lab: it does not know virtualservices\.networking\.istio\.io\./,
  },
  {
    name: 'an istiod that is not ready',
    prepare: ({ api }) => {
      const istiod = api.objects().find(({ metadata }) => metadata.name === 'istiod')
      api.put({ ...istiod!, status: { observedGeneration: 3, readyReplicas: 0 } })
    },
    message: /^istiod is not ready \(istio-system\/istiod\)/,
  },
  {
    name: 'a namespace without injection',
    prepare: ({ api }) => api.put({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'boutique', labels: {} } }),
    message:
      /^the namespace boutique is not labelled for Istio's injection: .*; kubectl --context lab label namespace boutique istio-injection=enabled makes it so$/,
  },
  {
    name: 'a namespace in ambient mode',
    prepare: ({ api }) =>
      api.put({
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name: 'boutique', labels: { 'istio.io/dataplane-mode': 'ambient' } },
      }),
    message: /^the namespace boutique is in ambient mode, where no sidecar is injected/,
  },
  {
    name: 'a namespace that is being deleted',
    prepare: ({ api }) =>
      api.put({
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name: 'boutique', deletionTimestamp: '2026-01-01T00:00:00Z' },
      }),
    message: /^the namespace boutique is being deleted: wait until it is gone$/,
  },
  {
    name: 'an application that is said to be there and whose namespace is not',
    namespace: false,
    overrides: { settings: { manifests: [] } },
    message: /^there is no namespace boutique on lab, and nothing to install in it$/,
  },
  {
    name: 'an application that is said to be there and is not',
    overrides: { settings: { manifests: [] } },
    message: /^no pod in the namespace boutique has the label app=frontend, .*; none has the label app$/,
  },
  {
    name: 'what an earlier run left behind',
    prepare: ({ api }) =>
      api.put({
        ...virtualService('old', 'boutique', 'x'),
        metadata: {
          name: 'old',
          namespace: 'boutique',
          labels: { 'app.kubernetes.io/managed-by': 'meshfever-experiment', 'meshfever-run': 'r0' },
        },
      }),
    message:
      /^another experiment is in the namespace boutique, or left something behind \(run r0, for example virtualservice\/old\)\. If none runs: kubectl --context lab delete deployments\.apps,configmaps,virtualservices\.networking\.istio\.io --namespace boutique --selector=app\.kubernetes\.io\/managed-by=meshfever-experiment$/,
  },
  {
    name: 'an object of the application that is there',
    prepare: ({ api }) =>
      api.put({ apiVersion: 'v1', kind: 'Service', metadata: { name: 'frontend', namespace: 'boutique' } }),
    message:
      /^1 of the application's objects are in the namespace boutique already \(for example service\/frontend\), and are not overwritten/,
  },
  {
    name: "somebody else's VirtualService for the fault's host",
    prepare: ({ api }) => api.put(virtualService('canary', 'boutique', 'cartservice')),
    message:
      /^the VirtualService boutique\/canary is for the host cartservice, as is the fault's frontend-cartservice-delay: Istio merges none/,
  },
  {
    name: "a VirtualService for the fault's host in another namespace",
    prepare: ({ api }) => api.put(virtualService('canary', 'istio-system', 'cartservice.boutique.svc.cluster.local')),
    message: /^the VirtualService istio-system\/canary is for the host cartservice\.boutique\.svc\.cluster\.local/,
  },
  {
    name: "a VirtualService of the fault's name",
    prepare: ({ api }) => api.put(virtualService('frontend-cartservice-delay', 'boutique', 'adservice')),
    message: /^there is a VirtualService frontend-cartservice-delay in the namespace boutique already/,
  },
  {
    name: 'a Prometheus that is elsewhere',
    overrides: { settings: { prometheus: { namespace: 'monitoring', service: 'prom', port: 80 } } },
    message: /^there is no Service prom in the namespace monitoring, where Prometheus was said to be/,
  },
  {
    name: 'missing permissions',
    prepare: ({ api }) => {
      api.forbids = (verb, resource) => verb === 'delete' && ['virtualservices', 'configmaps'].includes(resource)
    },
    message:
      /^the user of context lab may not delete configmaps in boutique, delete virtualservices\.networking\.istio\.io in boutique$/,
  },
  {
    name: 'a chart without Helm',
    overrides: {
      settings: { manifests: [], chart: { name: 'oci://registry.test/boutique', repository: null, version: '1' } },
    },
    message:
      /^the application is the chart oci:\/\/registry\.test\/boutique, and Helm, which renders charts, was not found/,
  },
  {
    name: 'a manifest that cannot be read',
    overrides: { settings: { manifests: ['/no/such/file.yaml'] } },
    message:
      /^cannot read the manifests of \/no\/such\/file\.yaml: .*the path "\/no\/such\/file\.yaml" does not exist$/,
  },
  {
    name: 'an address without a manifest',
    overrides: { settings: { manifests: ['http://127.0.0.1:1/app.yaml'] } },
    message:
      /^cannot read the manifests of http:\/\/127\.0\.0\.1:1\/app\.yaml: .*The connection to the server 127\.0\.0\.1:1 was refused/,
  },
  {
    name: 'a kind that the cluster does not know',
    prepare: ({ settings }) =>
      writeFileSync(settings.manifests[0] ?? '', 'apiVersion: example.test/v1\nkind: Shop\nmetadata: {name: x}'),
    message: /^lab knows no Shop of example\.test\/v1$/,
  },
  {
    name: 'a fault that is no VirtualService',
    overrides: {
      experiment: { faults: [{ ...CART_DELAY, manifest: 'apiVersion: v1\nkind: Pod\nmetadata: {name: x}' }] },
    },
    error: UsageError,
    message:
      /^fault "cart delay": its manifest must have VirtualServices of networking\.istio\.io only, got Pod of v1$/,
  },
  {
    name: 'a fault for another namespace',
    overrides: {
      experiment: {
        faults: [{ ...CART_DELAY, manifest: JSON.stringify(virtualService('x', 'prod', 'cartservice')) }],
      },
    },
    error: UsageError,
    message:
      /^virtualservice\/x is for the namespace "prod", and the experiment's namespace is "boutique": use the same$/,
  },
  {
    name: 'an application for which there are no users',
    overrides: { experiment: { application: 'bookinfo' } },
    error: UsageError,
    message: /^application must be online-boutique or sock-shop on a cluster, .*got "bookinfo"$/,
  },
]

for (const { name, istio = true, namespace = true, prepare, overrides, error = StartError, message } of REFUSALS) {
  test(`kubernetes: ${name}: a clear error, and nothing is changed`, { skip }, async (t) => {
    const lab = await startLabCluster(t, { istio, namespace })
    prepare?.(lab)
    const before = lab.api.objects()
    await assert.rejects(lab.start(overrides), (thrown: unknown) => {
      assert.ok(thrown instanceof error, String(thrown))
      assert.match(thrown.message, message)
      return true
    })
    assert.deepEqual(changes(lab), [])
    assert.deepEqual(lab.api.objects(), before)
  })
}
