import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'

import { StartError } from '../src/core/errors.js'
import { runToEnd } from '../src/experiment/kubernetes-kubectl.js'
import type { Intercepted } from './helpers/api-server.js'
import { vectorAnswer } from './helpers/fake-runtime.js'
import {
  CART_DELAY,
  failureOf,
  labelled,
  logLine,
  startLabCluster,
  there,
  virtualService,
} from './helpers/lab-cluster.js'

const skip = spawnSync('kubectl', ['version', '--client']).status === 0 ? false : 'kubectl is not on the PATH'

const DEPLOYMENTS = '/apis/apps/v1/namespaces/boutique/deployments'

// What goes wrong once something is applied ---------------------------------------------------------------------------------------

test(
  'kubernetes: an image that cannot be pulled: the pod, the reason and its last event, and nothing stays',
  { skip },
  async (t) => {
    const lab = await startLabCluster(t)
    lab.api.fate = ({ metadata }) =>
      metadata.name === 'cartservice'
        ? { waiting: 'ImagePullBackOff', message: 'Back-off pulling image', event: 'registry.test: no such host' }
        : 'ready'
    await assert.rejects(lab.start({ limits: { readyMs: 90_000 } }), {
      name: 'StartError',
      message:
        /^not ready after [1-5]?\d s: cartservice\. Pod cartservice-7c5d-x1: server \(registry\.test\/cartservice:1\): ImagePullBackOff: Back-off pulling image; its last event: Failed: registry\.test: no such host$/,
    })
    assert.deepEqual(
      lab.added().filter((object) => !object.startsWith('Event ')),
      [],
    )
  },
)

test('kubernetes: pods that are not ready in time are named', { skip }, async (t) => {
  const lab = await startLabCluster(t)
  lab.api.fate = () => ({ waiting: 'CrashLoopBackOff', message: 'back-off 10s' })
  await assert.rejects(lab.start({ limits: { readyMs: 300 } }), {
    message: /^not ready after \d+ s: frontend, cartservice\. Pod frontend-7c5d-x1: .*CrashLoopBackOff: back-off 10s$/,
  })
  assert.deepEqual(lab.added(), [])
})

test('kubernetes: pods that got no sidecar are named, and nothing stays', { skip }, async (t) => {
  const lab = await startLabCluster(t)
  lab.api.injects = false
  await assert.rejects(lab.start(), {
    message: /^the pod frontend-7c5d-x1 has no sidecar \(a container istio-proxy\)/,
  })
  assert.deepEqual(lab.added(), [])
})

test(
  'kubernetes: an object that appears in the middle of the installation is neither overwritten nor removed',
  { skip },
  async (t) => {
    const lab = await startLabCluster(t)
    const theirs = {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'frontend', namespace: 'boutique' },
      spec: { mine: true },
    }
    lab.api.intercept = ({ method, path }) => {
      if (method === 'POST' && path === DEPLOYMENTS && there(lab, 'Service', /^frontend$/) === undefined)
        lab.api.put(theirs)
      return undefined
    }
    await assert.rejects(lab.start(), { message: /services "frontend" already exists/ })
    assert.deepEqual(lab.added(), ['Service boutique/frontend'])
    assert.deepEqual(there(lab, 'Service', /^frontend$/)?.['spec'], { mine: true })
  },
)

test('kubernetes: a Prometheus without the metric fails the run with what it has instead', { skip }, async (t) => {
  const lab = await startLabCluster(t, { installed: true })
  lab.answer = (query) => {
    if (query.startsWith('count(istio_request_duration_milliseconds_bucket{')) return vectorAnswer([])
    if (!query.startsWith('count by (source_app')) return undefined
    return vectorAnswer([{ metric: { source_app: 'unknown', destination_app: 'unknown' }, value: '1' }])
  }
  const stage = await lab.start({ limits: { metricsMs: 200 } })
  await stage.applyLoad(lab.experiment.load)
  await assert.rejects(failureOf(stage), {
    name: 'StartError',
    message:
      /^Prometheus has no istio_request_duration_milliseconds_bucket of frontend -> cartservice with reporter="source"; what it has carries no source_app and destination_app: the pods need the label app \(looked for 0\.2 s/,
  })
  await stage.close()
  assert.deepEqual(lab.added(), [])
})

test('kubernetes: a fault without effect fails the run and says what is in its way', { skip }, async (t) => {
  const lab = await startLabCluster(t, { installed: true })
  lab.delays = false
  const stage = await lab.start({ limits: { effectSpareMs: 0 } })
  await stage.applyFault(CART_DELAY)
  lab.api.put(virtualService('late', 'istio-system', 'cartservice.boutique.svc.cluster.local'))
  await assert.rejects(failureOf(stage), {
    name: 'StartError',
    message:
      /^fault "cart delay" took no effect within \d s \(200 ms for 100 % of requests; frontend -> cartservice: 5\.0 ms on average before, 5\.0 ms now\): the VirtualService istio-system\/late is for the same host$/,
  })
  await stage.close()
  assert.deepEqual(lab.added(), ['VirtualService istio-system/late'])
})

test('kubernetes: a load whose pod is started again fails the run', { skip }, async (t) => {
  const lab = await startLabCluster(t, { installed: true })
  const stage = await lab.start()
  await stage.applyLoad(lab.experiment.load)
  const pod = there(lab, 'Pod', /^meshfever-load-/)
  lab.api.put({ ...pod!, status: { containerStatuses: [{ name: 'load', restartCount: 1 }] } })
  await assert.rejects(failureOf(stage), {
    message:
      /^the load's pod meshfever-load-r\w+-1-7c5d-x1 has ended or was started again, .*: kubectl --context lab logs --namespace boutique meshfever-load-\S+ --previous$/,
  })
})

test('kubernetes: a port-forward that breaks is opened again on the same port', { skip }, async (t) => {
  const lab = await startLabCluster(t, { installed: true })
  const stage = await lab.start()
  const url = stage.metrics.kind === 'prometheus' ? stage.metrics.url : ''
  const ask = async (): Promise<number> => (await fetch(`${url}/-/ready`)).status
  assert.equal(await ask(), 200)
  lab.api.breakForwards()
  await logLine(lab, 'port-forward opened again')
  assert.equal(await ask(), 200)
})

test('kubernetes: a port-forward that cannot be had back fails the run', { skip }, async (t) => {
  const lab = await startLabCluster(t, { installed: true })
  const stage = await lab.start({ limits: { forwardMs: 1_500 } })
  lab.api.intercept = ({ path }) =>
    path.endsWith('/services/prometheus')
      ? { status: 404, reason: 'NotFound', message: 'services "prometheus" not found' }
      : undefined
  lab.api.breakForwards()
  await assert.rejects(failureOf(stage), {
    name: 'StartError',
    message:
      /^the port-forward of Prometheus broke and was not to be had again within 1\.5 s: .*services "prometheus" not found/,
  })
})

// Ctrl-C --------------------------------------------------------------------------------------------------------------------------

test('kubernetes: a command is in no group of ours, so that Ctrl-C on a terminal does not cut it', async () => {
  const options = { env: process.env, limitMs: 20_000 }
  const ended = await runToEnd('sh', ['-c', 'ps -o pgid= -p $$; echo $$'], options)
  const [group, pid] = ended.stdout.split('\n').map((line) => line.trim())
  assert.match(pid ?? '', /^\d+$/)
  assert.equal(group, pid)
})

for (const answer of ['hang', 'hang after'] as const) {
  const what = answer === 'hang' ? 'before' : 'after'
  test(
    `kubernetes: Ctrl-C in the middle of the installation, ${what} the server did what was asked: nothing stays`,
    { skip },
    async (t) => {
      const lab = await startLabCluster(t)
      let posts = 0
      lab.api.intercept = ({ method, path }) =>
        method === 'POST' && path === DEPLOYMENTS && ++posts === 2 ? answer : undefined
      const starting = lab.start()
      const rejected = assert.rejects(starting, { name: 'StartError', message: 'interrupted; nothing stays applied' })
      await lab.api.arrived(() => posts === 2)
      lab.stop()
      await rejected
      assert.deepEqual(lab.added(), [])
    },
  )
}

test('kubernetes: Ctrl-C while pods are waited for: nothing stays', { skip }, async (t) => {
  const lab = await startLabCluster(t)
  lab.api.fate = () => ({ waiting: 'ContainerCreating', message: '' })
  const starting = lab.start()
  const rejected = assert.rejects(starting, { message: 'interrupted; nothing stays applied' })
  await lab.api.arrived((request) => request === 'GET /api/v1/namespaces/boutique/pods')
  lab.stop()
  await rejected
  assert.deepEqual(lab.added(), [])
})

test(
  'kubernetes: Ctrl-C while the load is applied, and again while a fault is: close removes them',
  { skip },
  async (t) => {
    for (const { path, act } of [
      { path: '/configmaps', act: 'load' },
      { path: '/virtualservices', act: 'fault' },
    ] as const) {
      const lab = await startLabCluster(t, { installed: true })
      const stage = await lab.start()
      let held = false
      lab.api.intercept = (request) => {
        if (request.method !== 'POST' || !request.path.endsWith(path)) return undefined
        held = true
        return 'hang after'
      }
      const acting = act === 'load' ? stage.applyLoad(lab.experiment.load) : stage.applyFault(CART_DELAY)
      const rejected = assert.rejects(acting, { name: 'StartError', message: /interrupted$/ })
      await lab.api.arrived(() => held)
      assert.notDeepEqual(lab.added(), [])
      lab.stop()
      await stage.close()
      await rejected
      assert.deepEqual(lab.added(), [])
    }
  },
)

test(
  'kubernetes: Ctrl-C while a fault is in force: removing it and closing go on, and failed stays silent',
  { skip },
  async (t) => {
    const lab = await startLabCluster(t, { installed: true })
    const stage = await lab.start()
    let failure: unknown
    stage.failed.catch((error: unknown) => {
      failure = error
    })
    await stage.applyLoad(lab.experiment.load)
    await stage.applyFault(CART_DELAY)
    lab.stop()
    await stage.removeFault(CART_DELAY)
    assert.equal(there(lab, 'VirtualService', /./), undefined)
    await stage.close()
    assert.deepEqual(lab.added(), [])
    await delay(0)
    assert.equal(failure, undefined)
  },
)

// Cleaning up ---------------------------------------------------------------------------------------------------------------------

test(
  'kubernetes: a server that refuses, fails, or does not answer while things are removed is asked again',
  { skip },
  async (t) => {
    const lab = await startLabCluster(t, { installed: true })
    const stage = await lab.start({ limits: { commandMs: 1_500 } })
    await stage.applyFault(CART_DELAY)
    const answers: Intercepted[] = [
      { status: 403, reason: 'Forbidden' },
      { status: 500, reason: 'InternalError' },
      { status: 409, reason: 'Conflict' },
      'hang',
      'hang after',
    ]
    lab.api.intercept = ({ method }) => (method === 'DELETE' ? answers.shift() : undefined)
    await stage.removeFault(CART_DELAY)
    assert.deepEqual(answers, [])
    assert.deepEqual(lab.added(), [])
    assert.deepEqual(
      lab.logged
        .filter(({ msg }) => msg === 'not removed yet')
        .map(({ reason }) => /\((\w+)\)|no answer/.exec(String(reason))?.[0] ?? reason),
      ['(Forbidden)', '(InternalError)', '(Conflict)', 'no answer', 'no answer'],
    )
  },
)

test('kubernetes: what cannot be removed is told as commands, and a later close removes it', { skip }, async (t) => {
  const lab = await startLabCluster(t, { installed: true })
  const stage = await lab.start({ limits: { cleanupMs: 1_200 } })
  await stage.applyLoad(lab.experiment.load)
  await stage.applyFault(CART_DELAY)
  const run = labelled(there(lab, 'VirtualService', /./))['meshfever-run'] ?? ''
  lab.api.intercept = ({ method }) =>
    method === 'DELETE' ? { status: 403, reason: 'Forbidden', message: 'deletions are frozen' } : undefined
  const selector = (part: string): string =>
    `--selector=app.kubernetes.io/managed-by=meshfever-experiment,meshfever-run=${run},meshfever-part=${part} --ignore-not-found --wait=false`
  const commands = [
    `kubectl --context lab delete virtualservice.v1.networking.istio.io --namespace boutique ${selector('fault-1')}`,
    `kubectl --context lab delete configmap,deployment.v1.apps --namespace boutique ${selector(`meshfever-load-${run}-1`)}`,
  ]
  await assert.rejects(stage.close(), (error: unknown) => {
    assert.ok(error instanceof StartError)
    assert.match(error.message, /^not everything was removed from lab \(.*deletions are frozen.*\)\. Run: /)
    assert.ok(error.message.endsWith(commands.join(' ; ')), error.message)
    return true
  })
  assert.deepEqual(lab.logged.find(({ msg }) => msg === 'not removed: these commands do it')?.['commands'], commands)
  lab.api.intercept = () => undefined
  await stage.close()
  assert.deepEqual(lab.added(), [])
})

test('kubernetes: cleaning up on a server that hangs ends in bounded time with the commands', { skip }, async (t) => {
  const lab = await startLabCluster(t, { installed: true })
  const stage = await lab.start({ limits: { cleanupMs: 1_500 } })
  await stage.applyFault(CART_DELAY)
  lab.api.intercept = () => 'hang'
  const startMs = performance.now()
  await assert.rejects(stage.close(), {
    message: /^not everything was removed from lab \(.*no answer within .*Run: kubectl --context lab delete/,
  })
  assert.ok(performance.now() - startMs < 15_000)
})

test('kubernetes: an error of the start and one of the cleaning up are both told', { skip }, async (t) => {
  const lab = await startLabCluster(t)
  lab.api.injects = false
  lab.api.intercept = ({ method }) => (method === 'DELETE' ? { status: 500, reason: 'InternalError' } : undefined)
  await assert.rejects(lab.start({ limits: { cleanupMs: 500 } }), {
    message: /^the pod frontend-7c5d-x1 has no sidecar .*\. And not everything was removed from lab .*Run: kubectl/,
  })
})
