import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'

import { ISTIO_BUCKETS_MS } from '../src/core/istio-buckets.js'
import { systemClock } from '../src/io/clock.js'
import { startTestbed, type Testbed, type TestbedConfig } from '../src/testbed/testbed.js'
import { loadTopology } from '../src/testbed/topology.js'
import { type FakeRuntime, fakeRuntime } from './helpers/fake-runtime.js'

const USERS = 4
const DEADLINE_MS = 20_000

interface Mesh {
  readonly testbed: Testbed
  readonly runtime: FakeRuntime
  readonly directory: string
}

/** A real mesh, without users until somebody sets some. */
async function startMesh(context: TestContext, config: Partial<TestbedConfig> = {}): Promise<Mesh> {
  const directory = mkdtempSync(join(tmpdir(), 'meshfever-testbed-'))
  const runtime = fakeRuntime([])
  const testbed = await startTestbed(
    { ...runtime, clock: systemClock },
    {
      topology: loadTopology('online-boutique', '--topology'),
      load: {
        shape: { steps: [{ fromUsers: 0, toUsers: 0 }], stepSeconds: 60, transients: [] },
        spawnRate: 1_000,
        waitSeconds: { min: 0, max: 0.02 },
      },
      seed: 1,
      controlPort: 0,
      faultsDirectory: directory,
      ...config,
    },
  )
  context.after(async () => {
    await testbed.close()
    rmSync(directory, { recursive: true, force: true })
  })
  return { testbed, runtime, directory }
}

async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadlineMs = performance.now() + DEADLINE_MS
  while (!(await condition())) {
    if (performance.now() > deadlineMs) assert.fail(`${what} did not happen in ${DEADLINE_MS} ms`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

async function scrape({ targets }: Testbed, app: string): Promise<Sample[]> {
  const address = targets.find(({ labels }) => labels.app === app)?.targets[0] ?? ''
  const body = await (await fetch(`http://${address}/stats/prometheus`)).text()
  return body
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const [, name = '', labels = '', value = ''] = /^(\w+)\{(.*)\} (\S+)$/.exec(line) ?? []
      const pairs = [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key = '', text = '']) => [key, text])
      return { name, labels: Object.fromEntries(pairs) as Record<string, string>, value: Number(value) }
    })
}

function total(samples: readonly Sample[], name: string, wanted: Readonly<Record<string, string>>): number {
  return samples
    .filter(
      (sample) => sample.name === name && Object.entries(wanted).every(([key, value]) => sample.labels[key] === value),
    )
    .reduce((sum, { value }) => sum + value, 0)
}

const REQUESTS = 'istio_requests_total'
const DURATION = 'istio_request_duration_milliseconds'
const FRONTEND_TO_CART = { source_app: 'frontend', destination_app: 'cartservice' }
const AT_SOURCE = { reporter: 'source', ...FRONTEND_TO_CART }
const AT_DESTINATION = { reporter: 'destination', ...FRONTEND_TO_CART }

test('testbed: both ends of every pair count the same requests', async (context) => {
  const { testbed } = await startMesh(context)
  testbed.setExtraUsers(USERS)
  await until(() => testbed.users().requests > 100, 'a hundred requests')
  testbed.setExtraUsers(0)
  const all = async (): Promise<Sample[]> =>
    (await Promise.all(testbed.targets.map(({ labels }) => scrape(testbed, labels.app)))).flat()
  // Users who leave finish the request they are in, so the mesh comes to rest.
  let samples: Sample[] = []
  await until(async () => {
    const before = total(samples, REQUESTS, {})
    samples = await all()
    return testbed.users().currentUsers === 0 && total(samples, REQUESTS, {}) === before
  }, 'rest')
  const pairs = new Set(
    samples
      .filter(({ name, labels }) => name === REQUESTS && labels['source_app'] !== 'unknown')
      .map(({ labels }) => `${labels['source_app']} ${labels['destination_app']}`),
  )
  assert.ok(pairs.has('frontend cartservice'))
  assert.ok(pairs.has('checkoutservice paymentservice'))
  for (const pair of pairs) {
    const [source_app = '', destination_app = ''] = pair.split(' ')
    const ends = ['source', 'destination'].map((reporter) =>
      total(samples, REQUESTS, { reporter, source_app, destination_app, response_code: '200' }),
    )
    assert.equal(ends[0], ends[1], pair)
  }
  const frontend = samples.filter(
    ({ labels }) => labels['source_app'] === 'frontend' && labels['reporter'] === 'source',
  )
  assert.equal(total(frontend, `${DURATION}_count`, {}), total(frontend, REQUESTS, {}))
  assert.equal(total(frontend, `${DURATION}_bucket`, { le: '+Inf' }), total(frontend, REQUESTS, {}))
})

test("testbed: a sidecar speaks with Istio's labels and buckets", async (context) => {
  const { testbed } = await startMesh(context)
  testbed.setExtraUsers(1)
  await until(async () => total(await scrape(testbed, 'frontend'), REQUESTS, AT_SOURCE) > 0, 'a request')
  const samples = await scrape(testbed, 'frontend')
  const sample = samples.find(({ name, labels }) => name === REQUESTS && labels['destination_app'] === 'cartservice')
  assert.deepEqual(sample?.labels, {
    reporter: 'source',
    source_workload: 'frontend',
    source_canonical_service: 'frontend',
    source_canonical_revision: 'latest',
    source_workload_namespace: 'default',
    source_principal: 'unknown',
    source_app: 'frontend',
    source_version: 'unknown',
    source_cluster: 'Kubernetes',
    destination_workload: 'cartservice',
    destination_workload_namespace: 'default',
    destination_principal: 'unknown',
    destination_app: 'cartservice',
    destination_version: 'unknown',
    destination_service: 'cartservice.default.svc.cluster.local',
    destination_canonical_service: 'cartservice',
    destination_canonical_revision: 'latest',
    destination_service_name: 'cartservice',
    destination_service_namespace: 'default',
    destination_cluster: 'Kubernetes',
    request_protocol: 'http',
    response_code: '200',
    grpc_response_status: '',
    response_flags: '-',
    connection_security_policy: 'unknown',
  })
  const bounds = samples
    .filter(({ name, labels }) => name === `${DURATION}_bucket` && labels['destination_app'] === 'cartservice')
    .map(({ labels }) => labels['le'])
  assert.deepEqual(bounds, [...ISTIO_BUCKETS_MS.map(String), '+Inf'])
})

test('testbed: promtool accepts what a sidecar serves', async (context) => {
  if (spawnSync('promtool', ['--version']).error !== undefined) {
    context.skip('promtool is not installed')
    return
  }
  const { testbed } = await startMesh(context)
  testbed.setExtraUsers(1)
  await until(async () => total(await scrape(testbed, 'frontend'), REQUESTS, AT_SOURCE) > 0, 'a request')
  const body = await (await fetch(`http://${testbed.targets[0]?.targets[0]}/stats/prometheus`)).text()
  const { stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: body, encoding: 'utf8' })
  // Istio's own name is the one thing that the linter does not like.
  assert.equal(
    `${stdout}${stderr}`,
    'istio_request_duration_milliseconds use base unit "seconds" instead of "milliseconds"\n',
  )
})

test('testbed: a delay is in force while its file is there, and only the source sees it', async (context) => {
  const { testbed, runtime, directory } = await startMesh(context)
  const file = join(directory, 'delay.yaml')
  const delayed = { ...AT_SOURCE, response_flags: 'DI' }
  const undelayed = { ...AT_SOURCE, response_flags: '-' }
  const atSource = async (labels: Readonly<Record<string, string>>): Promise<number> =>
    total(await scrape(testbed, 'frontend'), REQUESTS, labels)
  testbed.setExtraUsers(USERS)
  await until(async () => (await atSource(undelayed)) > 20, 'requests before the fault')
  assert.equal(await atSource(delayed), 0)

  writeFileSync(file, readFileSync(new URL('../../k8s/faults/frontend-cartservice-delay.yaml', import.meta.url)))
  await until(() => runtime.logged.some(({ msg }) => msg === 'fault applied'), 'the fault')
  const undelayedBefore = await atSource(undelayed)
  await until(async () => (await atSource(delayed)) > 10, 'delayed requests')
  const samples = await scrape(testbed, 'frontend')
  const delayedCount = total(samples, `${DURATION}_count`, delayed)
  assert.ok(total(samples, `${DURATION}_sum`, delayed) / delayedCount >= 200)
  assert.equal(total(samples, `${DURATION}_bucket`, { ...delayed, le: '100' }), 0)
  // Those that were under way when it came.
  assert.ok((await atSource(undelayed)) - undelayedBefore <= USERS)
  const cart = await scrape(testbed, 'cartservice')
  assert.ok(total(cart, `${DURATION}_sum`, AT_DESTINATION) / total(cart, `${DURATION}_count`, AT_DESTINATION) < 100)

  rmSync(file)
  await until(() => runtime.logged.some(({ msg }) => msg === 'fault removed'), 'the end of the fault')
  const undelayedAfter = await atSource(undelayed)
  await until(async () => (await atSource(undelayed)) > undelayedAfter + 20, 'requests after the fault')
})

test('testbed: an aborted request is answered by the sidecar and never reaches the destination', async (context) => {
  const { testbed } = await startMesh(context)
  testbed.applyFaults(
    `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: cart-abort }
spec:
  hosts: [cartservice]
  http:
    - fault: { abort: { httpStatus: 503, percentage: { value: 100 } } }
      route: [{ destination: { host: cartservice } }]
`,
    'the test',
  )
  testbed.setExtraUsers(USERS)
  const aborted = { ...AT_SOURCE, response_code: '503', response_flags: 'FI' }
  await until(async () => total(await scrape(testbed, 'frontend'), REQUESTS, aborted) > 10, 'aborted requests')
  assert.equal(total(await scrape(testbed, 'cartservice'), REQUESTS, AT_DESTINATION), 0)
  assert.ok(testbed.users().failures > 0)
  testbed.deleteFaults('the test')
  await until(async () => total(await scrape(testbed, 'cartservice'), REQUESTS, AT_DESTINATION) > 10, 'requests again')
})

test('testbed: a bad fault file is a warning that names file and field, and changes nothing', async (context) => {
  const { runtime, directory } = await startMesh(context)
  const file = join(directory, 'bad.yaml')
  writeFileSync(file, 'apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: { name: x }\nspec: {}\n')
  await until(() => runtime.logged.some(({ msg }) => msg === 'fault refused'), 'the refusal')
  const { reason } = runtime.logged.find(({ msg }) => msg === 'fault refused') ?? {}
  assert.equal(reason, `${file}, line 4: spec.hosts must be a list, got nothing`)
  assert.ok(!runtime.logged.some(({ msg }) => msg === 'fault applied'))
})

test('testbed: a surge beyond what a service can do makes its callers wait, and it passes', async (context) => {
  const { testbed } = await startMesh(context)
  testbed.setExtraUsers(150)
  const slow = async (): Promise<number> => {
    const samples = await scrape(testbed, 'frontend')
    return (
      total(samples, `${DURATION}_bucket`, { ...AT_SOURCE, le: '+Inf' }) -
      total(samples, `${DURATION}_bucket`, { ...AT_SOURCE, le: '250' })
    )
  }
  await until(async () => (await slow()) > 100, 'slow requests')
  testbed.setExtraUsers(1)
  await until(async () => {
    const before = await slow()
    const requests = testbed.users().requests
    await until(() => testbed.users().requests > requests + 10, 'requests')
    return (await slow()) === before
  }, 'calm')
})

test('testbed: Prometheus finds the sidecars over HTTP and in a file, and the number of users is served', async (context) => {
  const directory = mkdtempSync(join(tmpdir(), 'meshfever-sd-'))
  context.after(() => rmSync(directory, { recursive: true, force: true }))
  const fileSd = join(directory, 'targets.json')
  const loadFile = join(directory, 'users')
  writeFileSync(loadFile, '3\n')
  const { testbed } = await startMesh(context, { fileSd, loadFile })
  const overHttp: unknown = await (await fetch(`${testbed.controlUrl}/targets`)).json()
  assert.deepEqual(overHttp, testbed.targets)
  assert.deepEqual(JSON.parse(readFileSync(fileSd, 'utf8')), testbed.targets)
  assert.equal((await fetch(`${testbed.controlUrl}/healthz`)).status, 200)
  await until(() => testbed.users().currentUsers === 3, 'three users')
  const users = (await (await fetch(`${testbed.controlUrl}/users`)).json()) as Readonly<Record<string, number>>
  assert.deepEqual([users['current_users'], users['target_users'], users['extra_users']], [3, 3, 3])
  rmSync(loadFile)
  await until(() => testbed.users().currentUsers === 0, 'no users')
})

test('testbed: a load profile in the load file takes the place of the shape when it is read, and a bad one changes nothing', async (context) => {
  const loadFile = join(mkdtempSync(join(tmpdir(), 'meshfever-load-')), 'profile.json')
  context.after(() => rmSync(join(loadFile, '..'), { recursive: true, force: true }))
  const profile = (users: number): string =>
    JSON.stringify({
      steps: [[users, users]],
      stepSeconds: 60,
      transients: [],
      spawnRate: 1_000,
      waitSeconds: [0, 0.02],
    })
  writeFileSync(loadFile, profile(3))
  const { testbed, runtime } = await startMesh(context, { loadFile })
  await until(() => testbed.users().currentUsers === 3, 'three users')
  assert.equal(testbed.users().extraUsers, 0)
  writeFileSync(loadFile, profile(-1))
  await until(() => runtime.logged.some(({ msg }) => msg === 'load file refused'), 'the refusal')
  const { expected } = runtime.logged.find(({ msg }) => msg === 'load file refused') ?? {}
  assert.equal(expected, `${loadFile}: steps[0]: expected two numbers of at least 0, got an array of 2`)
  assert.equal(testbed.users().targetUsers, 3)
  writeFileSync(loadFile, profile(1))
  await until(() => testbed.users().currentUsers === 1, 'one user')
})

test('testbed: it is closed within a second, under load and with a delay running, and can be closed again', async (context) => {
  const { testbed } = await startMesh(context)
  testbed.applyFaults(
    readFileSync(new URL('../../k8s/faults/double-delay.yaml', import.meta.url), 'utf8').replaceAll('0.2s', '60s'),
    'slow',
  )
  testbed.setExtraUsers(20)
  await until(() => testbed.users().currentUsers === 20, 'twenty users')
  const startMs = performance.now()
  await testbed.close()
  await testbed.close()
  assert.ok(performance.now() - startMs < 1_000)
  await assert.rejects(fetch(testbed.frontendUrl))
})
