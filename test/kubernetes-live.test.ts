import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { createRequestMetrics, EXPOSITION_CONTENT_TYPE } from '../src/testbed/istio-metrics.js'
import { findPrometheus, startPrometheus, writeTargets } from '../src/testbed/prometheus-server.js'
import { fakeRuntime } from './helpers/fake-runtime.js'
import { CART_DELAY, delayOf, failureOf, logLine, startLabCluster, there } from './helpers/lab-cluster.js'
import { startHttpServer } from './helpers/local-server.js'
import { PROGRAM } from './helpers/program.js'
import { temporaryFile, temporaryFolder } from './helpers/temporary-folder.js'

const skip = spawnSync('kubectl', ['version', '--client']).status === 0 ? false : 'kubectl is not on the PATH'

test(
  'kubernetes: behind kubectl port-forward stands a real Prometheus: it has the metrics, and a fault is seen in them or is not',
  { skip },
  async (t) => {
    // A sidecar of frontend that answers for ten requests a scrape, slowly as long as a fault for cartservice is applied.
    const metrics = createRequestMetrics()
    const edge = {
      reporter: 'source',
      source: { name: 'frontend', namespace: 'boutique' },
      destination: { name: 'cartservice', namespace: 'boutique' },
    } as const
    let delayed = (): boolean => false
    const sidecar = await startHttpServer(t, (_, response) => {
      for (let i = 0; i < 10; i++) metrics.record(edge, { code: 200, flags: '-' }, delayed() ? 206 : 6)
      response.setHeader('content-type', EXPOSITION_CONTENT_TYPE).end(metrics.render())
    })
    const folder = temporaryFolder(t)
    const targetsFile = join(folder, 'sidecars.json')
    writeTargets(targetsFile, [{ targets: [new URL(sidecar.url).host] }])
    const finding = fakeRuntime([''])
    const environment = process.env
    const { url, child } = await startPrometheus({
      binary: await findPrometheus({ ...finding, program: { ...finding.program, environment } }),
      folder,
      scrapeIntervalSeconds: 1,
      jobs: [{ name: 'sidecars', metricsPath: '/stats/prometheus', targetsFile }],
    })
    t.after(() => child.stop())
    const lab = await startLabCluster(t, { installed: true, prometheusPort: Number(new URL(url).port) })
    delayed = () => lab.api.objects().some(({ metadata }) => metadata.name === 'frontend-cartservice-delay')

    const stage = await lab.start({
      experiment: { queryWindowSeconds: 3 },
      limits: { effectSpareMs: 0, metricsMs: 20_000 },
    })
    await stage.applyLoad(lab.experiment.load)
    await logLine(lab, 'metrics seen')
    await stage.applyFault(CART_DELAY)
    const { meanLatenciesMs } = await logLine(lab, 'fault took effect')
    const meanMs = (meanLatenciesMs as Readonly<Record<string, number>>)['frontend -> cartservice'] ?? NaN
    assert.ok(meanMs >= 106 && meanMs <= 206, `${meanMs} ms`)
    await stage.removeFault(CART_DELAY)

    // Of another name, and so without effect on this sidecar.
    await stage.applyFault(delayOf('frontend', 'cartservice', { name: 'nobody-takes-it' }))
    await assert.rejects(failureOf(stage), {
      message:
        /^fault "cart delay" took no effect within 6 s .*: look for another VirtualService or an EnvoyFilter for the same host/,
    })
    await stage.close()
    assert.deepEqual(lab.added(), [])
  },
)

test(
  'experiment run: Ctrl-C on the terminal while a cluster is under load: what was applied is removed, and the run is kept as partial',
  { skip },
  async (t) => {
    const lab = await startLabCluster(t)
    const folder = join(temporaryFolder(t), 'run')
    const file = temporaryFile(
      t,
      `name: on-a-cluster
target:
  kubernetes:
    context: lab
    namespace: boutique
    application: {manifests: [${lab.settings.manifests[0] ?? ''}]}
application: online-boutique
seed: 1
pairs: [frontend:cartservice]
training: {seconds: 3600}
observe: {seconds: 60}
load: {users: [5], stepSeconds: 60}
faults:
  - {name: cart delay, from: 10, to: 20, delay: {pair: frontend:cartservice, milliseconds: 200}}
expect: {severity: none}
`,
      'experiment.yaml',
    )
    // A terminal sends the signal to the whole group of processes, kubectl included where it were in it.
    const child = spawn(
      process.execPath,
      [PROGRAM, 'experiment', 'run', file, '--output', folder, '--confirm-context', 'lab'],
      { env: { ...process.env, ...lab.api.environment }, stdio: ['ignore', 'ignore', 'pipe'], detached: true },
    )
    t.after(() => child.kill('SIGKILL'))
    let log = ''
    child.stderr.on('data', (data: Buffer) => (log += data.toString()))
    const exit = new Promise<number | null>((resolve) => child.once('close', resolve))
    const loaded = lab.api.arrived((request) => request.startsWith('POST') && request.endsWith('/configmaps'))
    await Promise.race([loaded, exit.then((code) => assert.fail(`it ended with ${code ?? 'a signal'}: ${log}`))])
    assert.ok(there(lab, 'Deployment', /^frontend$/) !== undefined)
    process.kill(-child.pid!, 'SIGINT')
    const code = await exit
    assert.equal(code, 1, log)
    assert.match(log, /marked partial\n$/)
    assert.deepEqual(lab.added(), [], log)
    assert.equal((JSON.parse(readFileSync(join(folder, 'run.json'), 'utf8')) as { partial: boolean }).partial, true)
  },
)
