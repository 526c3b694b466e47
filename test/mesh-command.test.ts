import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'

import { commands } from '../src/commands/all.js'
import { parseCommandLine } from '../src/commands/command-line.js'
import { shardIn } from '../src/commands/mesh-monitor.js'
import { samplesNamed } from './helpers/exposition.js'
import { matrixAnswer } from './helpers/fake-runtime.js'
import { closedUrl, startHttpServer } from './helpers/local-server.js'
import { meshAnswer, meshElements } from './helpers/mesh-answers.js'
import { runProgram, startProgram } from './helpers/program.js'
import { times } from './helpers/recordings.js'
import { temporaryFile } from './helpers/temporary-folder.js'

const MESH = ['monitor', '--mesh', '--prometheus-url=http://p:9090']

function prepare(...args: readonly string[]): void {
  parseCommandLine({ args, environment: {}, commands, version: '1.2.3' })
}

/** A training file with 40 calm values around 10 ms for each source, but for one that has too few. */
function trainingFile(t: TestContext, sources: readonly string[]): string {
  const at = times(40)
  const series = [...sources, 'short'].map((source) => ({
    metric: { source_app: source, destination_app: 'b', quantile: '0.5' },
    values: at.slice(0, source === 'short' ? 3 : 40).map((time, i) => [time, String(8 + (i % 5))] as const),
  }))
  return temporaryFile(t, matrixAnswer(series))
}

for (const { args, message } of [
  ...['service1', 'service2'].map((name) => ({
    args: [...MESH, `--${name}=up`],
    message: `--${name} is not for --mesh, which finds its edges by --selector, got up`,
  })),
  {
    args: [...MESH, '--query=up{'],
    message: '--query must be a PromQL expression, got one that does not parse at character 4, near ""',
  },
  {
    args: [...MESH, '--query=up', '--selector=a="b"'],
    message: '--selector narrows the built-in query, and --query is given, got a="b"',
  },
  {
    args: ['monitor', '--prometheus-url=http://p:9090'],
    message: '--service1 is required: source service, the caller',
  },
  {
    args: ['monitor', '--service1=a', '--prometheus-url=http://p:9090'],
    message: '--service2 is required: destination service, the callee',
  },
  {
    args: ['monitor', '--service1=a', '--service2=b', '--prometheus-url=http://p:9090'],
    message:
      '--training-data-file is required: recording of normal traffic: a saved query_range answer; with --mesh one whose series carry the labels of their edge',
  },
  {
    args: ['monitor', '--selector=a="b"', '--prometheus-url=http://p:9090'],
    message: '--selector is for --mesh, which is not given',
  },
  {
    args: ['monitor', '--shard=1/2', '--prometheus-url=http://p:9090'],
    message: '--shard is for --mesh, which is not given',
  },
  ...['train-from=7d', 'train-step=1m', 'retrain-interval=off', 'train-concurrency=4'].map((flag) => ({
    args: ['monitor', '--service1=a', '--service2=b', `--${flag}`, '--prometheus-url=http://p:9090'],
    message: `--${flag.replace(/=.*/, '')} is for --mesh, which is not given`,
  })),
  ...['train-step=1m', 'retrain-interval=off', 'train-concurrency=4'].map((flag) => ({
    args: [...MESH, `--${flag}`],
    message: `--${flag.replace(/=.*/, '')} is for --train-from, which is not given`,
  })),
  ...['0', '0s', '-7d', '7', 'week'].map((text) => ({
    args: [...MESH, `--train-from=${text}`],
    message: `--train-from must be a Prometheus duration such as 15s, 1m or 1h30m, got "${text}"`,
  })),
  {
    args: [...MESH, '--train-from=10m'],
    message: '--train-from over --train-step must be 30 to 50000 samples, got 11 (10m at steps of 60 s)',
  },
  {
    args: [...MESH, '--train-from=1y', '--train-step=5m'],
    message: '--train-from must be a Prometheus duration such as 15s, 1m or 1h30m, got "1y"',
  },
  {
    args: [...MESH, '--train-from=52w', '--train-step=5m'],
    message: '--train-from over --train-step must be 30 to 50000 samples, got 104833 (52w at steps of 300 s)',
  },
  {
    args: [...MESH, '--train-from=7d', '--retrain-interval=sometimes'],
    message: '--retrain-interval must be a Prometheus duration such as 24h, or 0 or off, got "sometimes"',
  },
  {
    args: [...MESH, '--train-from=7d', '--train-concurrency=0'],
    message: '--train-concurrency must be a whole number from 1 to 8, got "0"',
  },
  { args: [...MESH, '--max-edges=0'], message: '--max-edges must be a whole number from 1 to 1000000, got "0"' },
  {
    args: [...MESH, '--edge-grace-seconds=-1'],
    message: '--edge-grace-seconds must be a number of at least 0, got "-1"',
  },
  { args: [...MESH, '--shard=0/5'], message: '--shard must be from 1/5 to 5/5, got "0/5"' },
  { args: [...MESH, '--shard=6/5'], message: '--shard must be from 1/5 to 5/5, got "6/5"' },
  ...['5', '1/0', '-1/5', '1.5/5', 'a/5', '1/1001', '1/5/5', ' 1/5', '1/', '/5', 'auto'].map((shard) => ({
    args: [...MESH, `--shard=${shard}`],
    message: `--shard must be ORDINAL/SHARDS such as 2/5, or auto/5 in a StatefulSet, with 1 to 1000 shards, got ${JSON.stringify(shard)}`,
  })),
]) {
  test(`mesh command: ${args.slice(1).join(' ')} is refused`, () => {
    assert.throws(() => prepare(...args), { name: 'UsageError', message })
  })
}

for (const { podName, ordinal } of [
  { podName: 'mesh-monitor-0', ordinal: 1 },
  { podName: 'mesh-monitor-4', ordinal: 5 },
]) {
  test(`mesh command: of five shards the pod ${podName} is number ${ordinal}`, () => {
    assert.deepEqual(shardIn({ ordinal: 'auto', count: 5 }, { POD_NAME: podName }), { ordinal, count: 5 })
  })
}

for (const [podName, came] of [
  [undefined, 'but it is not set'],
  ['mesh-monitor-5', 'got "mesh-monitor-5"'],
  ['mesh-monitor-x7', 'got "mesh-monitor-x7"'],
] as const) {
  test(`mesh command: the pod name ${JSON.stringify(podName)} is none of five shards`, () => {
    assert.throws(() => shardIn({ ordinal: 'auto', count: 5 }, podName === undefined ? {} : { POD_NAME: podName }), {
      name: 'UsageError',
      message: `--shard auto/5 needs the variable POD_NAME with the name of a StatefulSet's pod, which ends in -0 to -4, ${came}`,
    })
  })
}

test('mesh command: a file whose edges cannot be trained, any of them, is refused; one that some can is not', (t) => {
  assert.throws(() => prepare(...MESH, `--training-data-file=${trainingFile(t, [])}`), {
    name: 'RecordingError',
    message:
      /: no edge can be trained: short -> b: too few values to train load-and-season on: at least 30 needed, got 3/,
  })
  prepare(...MESH, `--training-data-file=${trainingFile(t, ['a'])}`)
  assert.throws(() => prepare(...MESH, '--quantile=0.9', `--training-data-file=${trainingFile(t, ['a'])}`), {
    name: 'RecordingError',
    message: /no edge can be trained: a -> b: none of the quantiles 0\.9$/,
  })
  const ofOnePair = temporaryFile(t, matrixAnswer([{ values: [[1_700_000_000, '1']] }]))
  assert.throws(() => prepare(...MESH, `--training-data-file=${ofOnePair}`), {
    name: 'RecordingError',
    message: /expected the labels source_app and destination_app, got \{\}; record a good one with/,
  })
})

test('mesh command: --check reads all, says what it found, needs no Prometheus and ends with 0', async (t) => {
  const args = [
    'monitor',
    '--mesh',
    `--prometheus-url=${await closedUrl()}`,
    '--selector=destination_service_namespace="boutique"',
    '--shard=auto/3',
    `--training-data-file=${trainingFile(t, ['a', 'c'])}`,
    '--check',
  ]
  const exit = await runProgram(t, args, { POD_NAME: 'mesh-monitor-1' })
  assert.deepEqual([exit.code, exit.stderr], [0, ''])
  const lines = exit.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>)
  assert.deepEqual(
    lines.map(({ msg, shard, edges, unusable, reasons }) => ({ msg, shard, edges, unusable, reasons })),
    [
      { msg: 'watching a mesh', shard: '2/3', edges: undefined, unusable: undefined, reasons: undefined },
      { msg: 'training data read', shard: undefined, edges: 2, unusable: 1, reasons: undefined },
      {
        msg: 'edges that cannot be trained stay warming',
        shard: undefined,
        edges: 1,
        unusable: undefined,
        reasons: String(lines[2]?.['reasons']),
      },
    ],
  )
  assert.match(String(lines[0]?.['query']), /\{reporter="source",destination_service_namespace="boutique"\}/)
  const refused = await runProgram(t, args)
  assert.deepEqual([refused.code, refused.stdout], [2, ''])
  assert.match(refused.stderr, /^meshfever: --shard auto\/3 needs the variable POD_NAME .*\n$/)
})

test('mesh command: the daemon trains while it serves, watches all edges from one query, and is scraped in gzip or not', async (t) => {
  const queries: string[] = []
  const { url } = await startHttpServer(t, (request, response) => {
    queries.push(new URL(request.url ?? '', 'http://x').searchParams.get('query') ?? '')
    const now = Date.now() / 1000
    response.end(
      meshAnswer(
        ['a', 'c', 'short', 'new', '"hostile\n'].flatMap((source) =>
          meshElements({ source, destination: 'b' }, now, { 0.5: source === 'c' ? '400' : '10' }),
        ),
      ),
    )
  })
  const program = startProgram(t, [
    'monitor',
    '--mesh',
    `--prometheus-url=${url}`,
    `--training-data-file=${trainingFile(t, ['a', 'c', '"hostile\n'])}`,
    '--listen-address=127.0.0.1',
    '--prometheus-port=0',
    '--poll-interval-seconds=0.3',
  ])
  const served = String((await program.logged('where it listens', ({ msg }) => msg === 'listening'))['url'])
  await program.logged('its baselines', ({ msg }) => msg === 'baselines fitted')
  const trained = (line: Readonly<Record<string, unknown>>): boolean =>
    line['msg'] === 'evaluated mesh' && (line['verdicts'] as { ok: number }).ok === 2
  await program.logged('a poll', trained)
  await program.logged('the next one', trained) // the first is published by now
  const scrape = async (acceptEncoding: string): Promise<readonly [string | null, string]> => {
    const response = await fetch(`${served}/metrics`, { headers: { 'accept-encoding': acceptEncoding } })
    assert.equal(response.headers.get('vary'), 'accept-encoding')
    return [response.headers.get('content-encoding'), await response.text()]
  }
  const [[plain, text], [coding, decoded]] = await Promise.all([scrape('identity'), scrape('gzip')])
  assert.deepEqual([plain, coding], [null, 'gzip'])
  for (const body of [text, decoded]) {
    assert.deepEqual(samplesNamed(body, 'meshfever_edges{'), {
      'meshfever_edges{state="ok"}': 2,
      'meshfever_edges{state="anomalous"}': 1,
      'meshfever_edges{state="low_traffic"}': 0,
      'meshfever_edges{state="no_data"}': 0,
      'meshfever_edges{state="warming"}': 2,
    })
    assert.deepEqual(samplesNamed(body, 'lab7_anomaly_count'), {
      'lab7_anomaly_count{source="a",destination="b"}': 0,
      'lab7_anomaly_count{source="c",destination="b"}': 1,
      'lab7_anomaly_count{source="\\"hostile\\n",destination="b"}': 0,
    })
  }
  assert.equal((await fetch(`${served}/readyz`)).status, 200)
  assert.equal(new Set(queries).size, 1)
  program.kill('SIGTERM')
  const { code, signal, stderr } = await program.exit
  assert.deepEqual({ code, signal, stderr }, { code: 0, signal: null, stderr: '' })
})

test('mesh command: a shard trains its own edges, and the shards together all of them', async (t) => {
  const sources = Array.from({ length: 12 }, (_, i) => `service-${i}`)
  const file = trainingFile(t, sources)
  const url = await closedUrl()
  const trained = await Promise.all(
    ['1/2', '2/2'].map(async (shard) => {
      const program = startProgram(t, [
        ...['monitor', '--mesh', `--prometheus-url=${url}`, `--training-data-file=${file}`, `--shard=${shard}`],
        ...['--listen-address=127.0.0.1', '--prometheus-port=0'],
      ])
      const line = await program.logged('its baselines', ({ msg }) => msg === 'baselines fitted')
      return Number(line['edges'])
    }),
  )
  assert.ok(
    trained.every((edges) => edges > 0),
    trained.join(' '),
  )
  assert.equal(trained[0]! + trained[1]!, sources.length)
})

test('mesh command: --train-from and a training file are not for one monitor', (t) => {
  assert.throws(() => prepare(...MESH, '--train-from=7d', `--training-data-file=${trainingFile(t, ['a'])}`), {
    name: 'UsageError',
    message: '--train-from and --training-data-file must not be given together: each says what is normal',
  })
})

test('mesh command: what --train-from will do is checked and told with --check', async (t) => {
  const exit = await runProgram(t, [...MESH, '--train-from=7d', '--retrain-interval=off', '--check'])
  assert.deepEqual([exit.code, exit.stderr], [0, ''])
  assert.match(
    exit.stdout,
    /"rangeSeconds":604800,"stepSeconds":60,"retrainSeconds":null,"concurrency":2,"msg":"edges are trained from the history/,
  )
  assert.doesNotMatch(exit.stdout, /no edge has a baseline/)
})

test('mesh command: without training data it says so, and every edge is warming', async (t) => {
  const exit = await runProgram(t, [...MESH, '--check'])
  assert.equal(exit.code, 0)
  assert.match(exit.stdout, /without --train-from or --training-data-file no edge has a baseline/)
})
