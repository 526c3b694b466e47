import assert from 'node:assert/strict'
import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { test } from 'node:test'

import { parse } from 'yaml'

import { MODELS } from '../src/commands/models.js'
import { UsageError } from '../src/core/errors.js'
import { compressed } from '../src/experiment/compress.js'
import { type Experiment, parseExperiment, readExperimentFile } from '../src/experiment/experiment-file.js'
import { packageRoot } from './helpers/package-root.js'
import { temporaryFile } from './helpers/temporary-folder.js'

const NAMES = MODELS.map(({ name }) => name)
const FILE = join(packageRoot(), 'experiments/small.yaml')

const SMALL = `name: small
description: A small one.
target: testbed
application: online-boutique
seed: 7
pairs:
  - frontend:cartservice
  - checkoutservice:paymentservice=7
training: { seconds: 1800 }
observe:
  seconds: 900
load:
  users: [50, 50-100, 100]
  stepSeconds: 60
  spawnRate: 20
  waitSeconds: 2-4
  transients:
    - { from: 150, to: 250, users: 400 }
faults:
  - name: cart delay
    from: 300
    to: 600
    delay: { pair: frontend:cartservice, milliseconds: 200, percent: 50 }
  - name: payment delay
    from: 450
    to: 600
    manifest: ../k8s/faults/checkoutservice-paymentservice-delay.yaml
    pairs: [checkoutservice:paymentservice]
    delayMs: 200
timing:
  scrapeSeconds: 15
  windowSeconds: 60
model: static-mad
incident: { incidentThreshold: 12, accumulatorThreshold: 4 }
expect:
  severity: 1
  sev1WithinSeconds: 240
  anomalies: true
`

function parsed(text: string, file = FILE): Experiment {
  return parseExperiment(text, file, NAMES)
}

/** The small experiment with one passage in place of another. */
function changed(from: string, to: string): string {
  assert.ok(SMALL.includes(from), from)
  return SMALL.replace(from, to)
}

test('experiment file: every field is read, and what is left out is as in the lab', () => {
  const { faults, ...rest } = parsed(SMALL)
  assert.deepEqual(rest, {
    name: 'small',
    description: 'A small one.',
    target: { kind: 'testbed' },
    application: 'online-boutique',
    seed: 7,
    pairs: [
      { source: 'frontend', destination: 'cartservice', accumulatorThreshold: 4 },
      { source: 'checkoutservice', destination: 'paymentservice', accumulatorThreshold: 7 },
    ],
    trainingSeconds: 1800,
    observedSeconds: 900,
    load: {
      steps: [
        { fromUsers: 50, toUsers: 50 },
        { fromUsers: 50, toUsers: 100 },
        { fromUsers: 100, toUsers: 100 },
      ],
      stepSeconds: 60,
      transients: [{ fromSeconds: 150, toSeconds: 250, users: 400 }],
    },
    spawnRate: 20,
    waitSeconds: { min: 2, max: 4 },
    scrapeIntervalSeconds: 15,
    queryWindowSeconds: 60,
    pollIntervalSeconds: 15,
    recordStepSeconds: 15,
    model: 'static-mad',
    incident: {
      incidentThreshold: 12,
      clearThreshold: 5,
      coolBy: 2,
      accumulatorMax: 20,
      noDataTimeoutSeconds: 600,
    },
    expected: { severity: 1, sev1WithinSeconds: 240, anomalies: true },
  })
  assert.deepEqual(
    faults.map(({ manifest, ...fault }) => ({ ...fault, kinds: manifest.match(/^kind: .*$/gm) })),
    [
      {
        name: 'cart delay',
        fromSeconds: 300,
        toSeconds: 600,
        pairs: [{ source: 'frontend', destination: 'cartservice' }],
        delayMs: 200,
        percent: 50,
        kinds: ['kind: VirtualService'],
      },
      {
        name: 'payment delay',
        fromSeconds: 450,
        toSeconds: 600,
        pairs: [{ source: 'checkoutservice', destination: 'paymentservice' }],
        delayMs: 200,
        percent: 100,
        kinds: ['kind: VirtualService'],
      },
    ],
  )
})

test('experiment file: a delay becomes a VirtualService of the callee for that caller alone', () => {
  assert.deepEqual(parse(parsed(SMALL).faults[0]?.manifest ?? ''), {
    apiVersion: 'networking.istio.io/v1',
    kind: 'VirtualService',
    metadata: { name: 'frontend-cartservice-delay' },
    spec: {
      hosts: ['cartservice'],
      http: [
        {
          name: 'frontend-delayed',
          match: [{ sourceLabels: { app: 'frontend' } }],
          fault: { delay: { fixedDelay: '200ms', percentage: { value: 50 } } },
          route: [{ destination: { host: 'cartservice' } }],
        },
        { name: 'undelayed', route: [{ destination: { host: 'cartservice' } }] },
      ],
    },
  })
})

test('experiment file: the least that can be said', () => {
  const { waitSeconds, load, faults, model, expected, seed } = parsed(
    [
      'name: least',
      'application: sock-shop',
      'pairs: [front-end:carts]',
      'training: { seconds: 450 }',
      'observe: { seconds: 60 }',
      'load: { users: 40 }',
      'expect: { severity: none }',
    ].join('\n'),
  )
  assert.deepEqual(
    { waitSeconds, load, faults, model, expected, seed },
    {
      waitSeconds: { min: 1, max: 10 },
      load: { steps: [{ fromUsers: 40, toUsers: 40 }], stepSeconds: 120, transients: [] },
      faults: [],
      model: 'load-and-season',
      expected: { severity: null },
      seed: 1,
    },
  )
})

const CLUSTER = `target:
  kubernetes:
    context: staging`

for (const { name, target, settings } of [
  { name: 'a context alone', target: CLUSTER, settings: {} },
  {
    name: 'an application that is there already',
    target: `${CLUSTER}\n    application: installed`,
    settings: { manifests: [] },
  },
  {
    name: 'manifests beside the experiment and elsewhere',
    target: `${CLUSTER}\n    namespace: shop\n    application: { manifests: [app.yaml, 'https://example.org/app.yaml'] }`,
    settings: {
      namespace: 'shop',
      manifests: [join(packageRoot(), 'experiments/app.yaml'), 'https://example.org/app.yaml'],
    },
  },
  {
    name: 'a chart, another Prometheus and k6',
    target: `${CLUSTER}
    application: { chart: { name: boutique, repository: 'https://example.org/charts' } }
    prometheus: { namespace: monitoring, port: 80 }
    load: { tool: k6 }
    frontendUrl: http://frontend:8080`,
    settings: {
      manifests: [],
      chart: { name: 'boutique', repository: 'https://example.org/charts', version: null },
      prometheus: { namespace: 'monitoring', service: 'prometheus', port: 80 },
      loadGenerator: { tool: 'k6', image: 'grafana/k6:1.3.0' },
      frontendUrl: 'http://frontend:8080',
    },
  },
]) {
  test(`experiment file: a cluster with ${name}`, () => {
    assert.deepEqual(parsed(changed('target: testbed', target)).target, {
      kind: 'kubernetes',
      settings: {
        context: 'staging',
        namespace: 'boutique',
        manifests: [
          'https://raw.githubusercontent.com/GoogleCloudPlatform/microservices-demo/v0.10.2/release/kubernetes-manifests.yaml',
        ],
        chart: null,
        prometheus: { namespace: 'istio-system', service: 'prometheus', port: 9090 },
        loadGenerator: { tool: 'locust', image: 'locustio/locust:2.32.1' },
        frontendUrl: 'http://frontend',
        ...settings,
      },
    })
  })
}

const BOUTIQUE =
  'frontend, checkoutservice, cartservice, productcatalogservice, currencyservice, recommendationservice, shippingservice, paymentservice, emailservice, adservice'

for (const { name, from, to, message } of [
  {
    name: 'a wrong field',
    from: 'observe:\n',
    to: 'observed:\n',
    message:
      'line 10: observed must be absent (the keys here are name, description, target, application, seed, pairs, training, observe, load, faults, timing, model, incident, expect), got an object',
  },
  {
    name: 'a wrong field inside',
    from: '  spawnRate: 20',
    to: '  spawn-rate: 20',
    message:
      'line 15: load.spawn-rate must be absent (the keys here are users, stepSeconds, spawnRate, waitSeconds, transients), got 20',
  },
  {
    name: 'no observation',
    from: 'observe:\n  seconds: 900\n',
    to: '',
    message: 'line 1: observe must be a mapping, got nothing',
  },
  {
    name: 'a name that is no folder',
    from: 'name: small',
    to: 'name: ../small',
    message: 'line 1: name must be lower-case letters, digits and dashes, at most 52, got "../small"',
  },
  {
    name: 'an unknown application',
    from: 'online-boutique',
    to: 'bookinfo',
    message: `line 4: application must be one of online-boutique, sock-shop or a topology's .yaml file, got "bookinfo"`,
  },
  {
    name: 'an unknown service in a pair',
    from: '  - checkoutservice:paymentservice=7',
    to: '  - checkoutservice:payment',
    message: `line 8: pairs[1] must be a pair of services of online-boutique (${BOUTIQUE}; payment is none), got "checkoutservice:payment"`,
  },
  {
    name: 'a pair that does not call',
    from: '  - checkoutservice:paymentservice=7',
    to: '  - cartservice:paymentservice',
    message:
      'line 8: pairs[1] must be a pair of which one calls the other (cartservice calls nobody), got "cartservice:paymentservice"',
  },
  {
    name: 'a pair given twice',
    from: '  - checkoutservice:paymentservice=7',
    to: '  - frontend:cartservice=7',
    message: 'line 8: pairs[1] must be a pair that was not given before, got "frontend:cartservice=7"',
  },
  {
    name: 'a pair without a callee',
    from: '  - checkoutservice:paymentservice=7',
    to: '  - checkoutservice',
    message: 'line 8: pairs[1] must be SOURCE:DESTINATION, got "checkoutservice"',
  },
  {
    name: 'a training too short for any model',
    from: 'training: { seconds: 1800 }',
    to: 'training: { seconds: 300 }',
    message: 'line 9: training.seconds must be at least 30 samples of recordSeconds (450), got 300',
  },
  {
    name: 'users that are none',
    from: '[50, 50-100, 100]',
    to: '[50, 50-, 100]',
    message: 'line 13: load.users[1] must be users from 0 to 10000, or a ramp such as 50-200, got "50-"',
  },
  {
    name: 'half a user',
    from: '[50, 50-100, 100]',
    to: '[50.5]',
    message: 'line 13: load.users[0] must be users from 0 to 10000, or a ramp such as 50-200, got 50.5',
  },
  {
    name: 'waits the wrong way round',
    from: 'waitSeconds: 2-4',
    to: 'waitSeconds: 4-2',
    message: 'line 16: load.waitSeconds must be seconds, or a range such as 1-10, got "4-2"',
  },
  {
    name: 'a transient outside of the observation',
    from: '{ from: 150, to: 250, users: 400 }',
    to: '{ from: 850, to: 950, users: 400 }',
    message: 'line 18: load.transients[0].to must be within the observation, at most 900, got 950',
  },
  {
    name: 'a fault without an end',
    from: '    from: 300\n    to: 600\n',
    to: '    from: 300\n',
    message: 'line 20: faults[0].to must be there: a fault ends within the observation, got nothing',
  },
  {
    name: 'a fault that ends after the observation',
    from: '    from: 300\n    to: 600\n',
    to: '    from: 300\n    to: 901\n',
    message: 'line 22: faults[0].to must be within the observation, at most 900, got 901',
  },
  {
    name: 'a fault that ends before it begins',
    from: '    from: 300\n    to: 600\n',
    to: '    from: 300\n    to: 300\n',
    message: 'line 22: faults[0].to must be after from (300), got 300',
  },
  {
    name: 'overlapping faults on one host',
    from: 'manifest: ../k8s/faults/checkoutservice-paymentservice-delay.yaml',
    to: 'manifest: ../k8s/faults/double-delay.yaml',
    message:
      'line 25: faults[1].from must be at or after 600, the end of "cart delay": both change the routes of cartservice, and a host takes one VirtualService, got 450',
  },
  {
    name: 'a fault with both a delay and a manifest',
    from: '    delay: { pair: frontend',
    to: '    manifest: a.yaml\n    delay: { pair: frontend',
    message: 'line 23: faults[0].manifest must be absent where a delay is given, got "a.yaml"',
  },
  {
    name: 'a fault with neither',
    from: '    delay: { pair: frontend:cartservice, milliseconds: 200, percent: 50 }\n',
    to: '',
    message: 'line 20: faults[0].manifest must be there, or delay, got nothing',
  },
  {
    name: 'a fault on an unknown service',
    from: 'pair: frontend:cartservice,',
    to: 'pair: frontend:carts,',
    message: `line 23: faults[0].delay.pair must be a pair of services of online-boutique (${BOUTIQUE}; carts is none), got "frontend:carts"`,
  },
  {
    name: 'a delay of nothing',
    from: 'milliseconds: 200',
    to: 'milliseconds: 0',
    message: 'line 23: faults[0].delay.milliseconds must be a number from 1 to 3600000, got 0',
  },
  {
    name: 'two faults of one name',
    from: 'name: payment delay',
    to: 'name: cart delay',
    message: 'line 24: faults[1].name must be a name that no other fault has, got "cart delay"',
  },
  {
    name: 'a manifest that is not there',
    from: 'faults/checkoutservice-paymentservice-delay.yaml',
    to: 'faults/none.yaml',
    message: new RegExp(
      '^small.yaml, line 27: faults\\[1\\].manifest must be a file that can be read \\(ENOENT: .*\\), got "../k8s/faults/none.yaml"$',
    ),
  },
  {
    name: 'a window of one scrape',
    from: 'windowSeconds: 60',
    to: 'windowSeconds: 20',
    message: 'line 32: timing.windowSeconds must be at least two scrapes (30), got 20',
  },
  {
    name: 'an unknown model',
    from: 'model: static-mad',
    to: 'model: magic',
    message: `line 33: model must be one of ${NAMES.join(', ')}, got "magic"`,
  },
  {
    name: 'a rule that contradicts itself',
    from: 'incidentThreshold: 12',
    to: 'incidentThreshold: 4',
    message: 'line 34: incident.clearThreshold must be at most incidentThreshold (4), got nothing',
  },
  {
    name: 'an incident that can never open',
    from: 'incidentThreshold: 12',
    to: 'incidentThreshold: 40',
    message:
      'line 34: incident.accumulatorMax must be more than incidentThreshold over the number of pairs, or no incident can ever open, got nothing',
  },
  {
    name: 'a severity that there is not',
    from: 'severity: 1',
    to: 'severity: 3',
    message: 'line 36: expect.severity must be none, 2 or 1, got 3',
  },
  {
    name: 'a limit of an incident that is not expected',
    from: 'severity: 1',
    to: 'severity: none',
    message: 'line 37: expect.sev1WithinSeconds must be absent where no incident is expected, got 240',
  },
  {
    name: 'a limit of Sev 1 where Sev 2 is expected',
    from: 'severity: 1',
    to: 'severity: 2',
    message: 'line 37: expect.sev1WithinSeconds must be absent where Sev 2 is the highest severity, got 240',
  },
  {
    name: 'a limit after the end',
    from: 'sev1WithinSeconds: 240',
    to: 'resolvedWithinSeconds: 400',
    message: 'line 37: expect.resolvedWithinSeconds must be a number from 1 to 300, got 400',
  },
  {
    name: 'a word for whether there are anomalies',
    from: 'anomalies: true',
    to: 'anomalies: many',
    message: 'line 38: expect.anomalies must be true or false, got "many"',
  },
  {
    name: 'a target that is none',
    from: 'target: testbed',
    to: 'target: moon',
    message: 'line 3: target must be testbed, or a mapping with kubernetes, got "moon"',
  },
  {
    name: 'a cluster without a context',
    from: 'target: testbed',
    to: 'target:\n  kubernetes:\n    namespace: shop',
    message: 'line 4: target.kubernetes.context must be a text, got nothing',
  },
  {
    name: 'a second document',
    from: '  anomalies: true\n',
    to: '  anomalies: true\n---\nname: other\n',
    message: 'line 40: the document must be absent: an experiment is one document, got an object',
  },
] as { name: string; from: string; to: string; message: string | RegExp }[]) {
  test(`experiment file: ${name} is refused with its line`, () => {
    const text = changed(from, to)
    const refuse = (): unknown => parseExperiment(text, 'small.yaml', NAMES)
    // Manifests are looked for beside the file.
    const inPlace = (): unknown => parsed(text)
    if (message instanceof RegExp) assert.throws(inPlace, ({ message: said }: Error) => message.test(short(said)))
    else {
      assert.throws(inPlace, (error: Error) => {
        assert.ok(error instanceof UsageError)
        assert.equal(short(error.message), `small.yaml, ${message}`)
        return true
      })
    }
    assert.throws(refuse, UsageError)
  })
}

function short(message: string): string {
  return message.replaceAll(`${packageRoot()}/experiments/`, '')
}

test('experiment file: what is no YAML is refused with its line', () => {
  assert.throws(
    () => parsed('name: [small\npairs: x', 'small.yaml'),
    /^UsageError: small\.yaml must be YAML: .* line 2/,
  )
  assert.throws(() => parsed('', 'small.yaml'), new UsageError('small.yaml must be an experiment, got an empty file'))
})

const OWN_TOPOLOGY = `name: own
namespace: default
entry: front
waitSeconds: { min: 2, max: 3 }
onStart: []
tasks: { look: { weight: 1, requests: [look] } }
services:
  - name: front
    concurrency: 4
    queueLimit: 10
    serviceTimeMs: { median: 1, sigma: 0.1 }
    endpoints: { look: [{ call: back/get }] }
  - name: back
    concurrency: 4
    queueLimit: 10
    serviceTimeMs: { median: 1, sigma: 0.1 }
    endpoints: { get: [] }
`

test('experiment file: a topology of its own is looked for beside it, and knows its services', (t) => {
  const topology = temporaryFile(t, OWN_TOPOLOGY, 'own.yaml')
  const file = join(topology, '../experiment.yaml')
  const text = (pair: string): string =>
    [
      'name: own',
      'application: own.yaml',
      `pairs: [${pair}]`,
      'training: { seconds: 450 }',
      'observe: { seconds: 60 }',
      'load: { users: 4 }',
      'expect: { severity: none }',
    ].join('\n')
  writeFileSync(file, text('front:back'))
  const { experiment } = readExperimentFile(file, NAMES)
  assert.deepEqual([experiment.application, experiment.waitSeconds], [topology, { min: 2, max: 3 }])
  assert.throws(
    () => parsed(text('back:front'), file),
    new UsageError(
      `${file}, line 3: pairs[0] must be a pair of which one calls the other (back calls nobody), got "back:front"`,
    ),
  )
  rmSync(topology)
  assert.throws(
    () => readExperimentFile(file, NAMES),
    /^UsageError: application must be a topology that can be read: ENOENT/,
  )
})

test('experiment file: compressing divides times and users alike, and leaves requests per second and delays', () => {
  const given = parsed(SMALL)
  const short = compressed(given, 10)
  assert.deepEqual(
    {
      training: short.trainingSeconds,
      observed: short.observedSeconds,
      load: short.load,
      spawnRate: short.spawnRate,
      wait: short.waitSeconds,
      faults: short.faults.map(({ fromSeconds, toSeconds, delayMs }) => [fromSeconds, toSeconds, delayMs]),
      timing: [
        short.scrapeIntervalSeconds,
        short.queryWindowSeconds,
        short.pollIntervalSeconds,
        short.recordStepSeconds,
        short.incident.noDataTimeoutSeconds,
      ],
      expected: short.expected,
    },
    {
      training: 180,
      observed: 90,
      load: {
        steps: [
          { fromUsers: 5, toUsers: 5 },
          { fromUsers: 5, toUsers: 10 },
          { fromUsers: 10, toUsers: 10 },
        ],
        stepSeconds: 6,
        transients: [{ fromSeconds: 15, toSeconds: 25, users: 40 }],
      },
      spawnRate: 20,
      wait: { min: 0.2, max: 0.4 },
      faults: [
        [30, 60, 200],
        [45, 60, 200],
      ],
      timing: [1.5, 6, 1.5, 1.5, 60],
      expected: { severity: 1, sev1WithinSeconds: 24, anomalies: true },
    },
  )
  const { incidentThreshold, clearThreshold, coolBy, accumulatorMax } = short.incident
  assert.deepEqual([incidentThreshold, clearThreshold, coolBy, accumulatorMax], [12, 5, 2, 20])
  assert.equal(compressed(given, 1), given)
})

test('experiment file: compressing beyond 0.2 s between scrapes is refused', () => {
  assert.equal(compressed(parsed(SMALL), 75).scrapeIntervalSeconds, 0.2)
  assert.throws(
    () => compressed(parsed(SMALL), 76),
    new UsageError('--compress must be at most 75 for small, so that 15 s between scrapes stay 0.2 s or more, got 76'),
  )
  assert.throws(
    () => compressed(parsed(changed('  windowSeconds: 60', '  windowSeconds: 60\n  pollSeconds: 5')), 60),
    new UsageError('--compress must be at most 50 for small, so that 5 s between polls stay 0.1 s or more, got 60'),
  )
})

const SHIPPED = readdirSync(join(packageRoot(), 'experiments')).filter((name) => name.endsWith('.yaml'))

test('experiment file: the eight that are shipped are there, named as their files', () => {
  const kinds = ['double-delay', 'no-fault', 'single-delay', 'transients']
  assert.deepEqual(
    SHIPPED,
    ['lab7', 'sock-shop'].flatMap((prefix) => kinds.map((kind) => `${prefix}-${kind}.yaml`)),
  )
  for (const file of SHIPPED) {
    const { experiment } = readExperimentFile(join(packageRoot(), 'experiments', file), NAMES)
    assert.equal(experiment.name, basename(file, '.yaml'))
    assert.ok(compressed(experiment, 30).scrapeIntervalSeconds >= 0.2, file)
  }
})

for (const prefix of ['lab7', 'sock-shop']) {
  test(`experiment file: ${prefix}-transients has the lab's four and one more`, () => {
    const path = join(packageRoot(), `experiments/${prefix}-transients.yaml`)
    const { transients } = readExperimentFile(path, NAMES).experiment.load
    const texts = transients.map(({ fromSeconds, toSeconds, users }) => `${fromSeconds}-${toSeconds}:${users}`)
    for (const lab of ['150-250:400', '500-550:1000', '1000-1050:800', '1250-1350:400'])
      assert.ok(texts.includes(lab), lab)
    assert.equal(texts.length, 5)
  })
}
