import assert from 'node:assert/strict'
import { test } from 'node:test'

import { UsageError } from '../src/core/errors.js'
import { BUILT_IN_TOPOLOGIES, loadTopology, parseTopology } from '../src/testbed/topology.js'

for (const name of BUILT_IN_TOPOLOGIES) {
  test(`testbed: the topology ${name} loads, and every call names a service and an endpoint that exist`, () => {
    const { services, entry } = loadTopology(name, '--topology')
    const endpointsOf = new Map(services.map((service) => [service.name, service.endpoints]))
    const calls = services.flatMap(({ endpoints }) => [...endpoints.values()].flat(2))
    assert.ok(calls.length > 10)
    for (const call of calls) assert.ok(endpointsOf.get(call.service)?.has(call.endpoint), JSON.stringify(call))
    const called = new Set(calls.map(({ service }) => service))
    assert.deepEqual(
      services.map((service) => service.name).filter((service) => !called.has(service)),
      [entry],
    )
  })
}

test('testbed: the online boutique has the services of the real one', () => {
  const { services } = loadTopology('online-boutique', '--topology')
  assert.deepEqual(services.map(({ name }) => name).sort(), [
    'adservice',
    'cartservice',
    'checkoutservice',
    'currencyservice',
    'emailservice',
    'frontend',
    'paymentservice',
    'productcatalogservice',
    'recommendationservice',
    'shippingservice',
  ])
})

const GOOD = `name: small
namespace: default
entry: a
waitSeconds: { min: 1, max: 2 }
onStart: [home]
tasks:
  index: { weight: 1, requests: [home] }
services:
  - name: a
    concurrency: 1
    queueLimit: 10
    serviceTimeMs: { median: 1, sigma: 0.1 }
    endpoints:
      home:
        - call: b/get
        - parallel: [{ call: b/get, times: 2 }, { call: b/get, optional: true, probability: 0.5 }]
  - name: b
    concurrency: 1
    queueLimit: 10
    serviceTimeMs: { median: 1, sigma: 0.1 }
    endpoints:
      get: []
`

test('testbed: a topology is read as it is written', () => {
  const get = { service: 'b', endpoint: 'get', times: 1, probability: 1, optional: false }
  const service = { concurrency: 1, queueLimit: 10, serviceTimeMs: { median: 1, sigma: 0.1 } }
  assert.deepEqual(parseTopology(GOOD, 'small.yaml'), {
    name: 'small',
    namespace: 'default',
    entry: 'a',
    waitSeconds: { min: 1, max: 2 },
    onStart: ['home'],
    tasks: [{ name: 'index', weight: 1, requests: ['home'] }],
    services: [
      {
        name: 'a',
        ...service,
        endpoints: new Map([
          [
            'home',
            [
              [get],
              [
                { ...get, times: 2 },
                { ...get, optional: true, probability: 0.5 },
              ],
            ],
          ],
        ]),
      },
      { name: 'b', ...service, endpoints: new Map([['get', []]]) },
    ],
  })
})

for (const { name, change, message } of [
  { name: 'no YAML', change: ['name: small', 'name: [small'], message: /^small\.yaml must be YAML: .* at line/ },
  {
    name: 'an unknown key',
    change: ['entry: a', 'entry: a\ncolour: red'],
    message: /^small\.yaml, line 4: colour must be absent \(the keys here are name, namespace, .*\), got "red"$/,
  },
  {
    name: 'a call of an unknown service',
    change: ['- call: b/get', '- call: c/get'],
    message:
      /^small\.yaml, line 15: services\[0\]\.endpoints\.home\[0\]\.call must be a call of one of a, b, got "c\/get"$/,
  },
  {
    name: 'a call of an unknown endpoint',
    change: ['- call: b/get', '- call: b/put'],
    message: /home\[0\]\.call must be a call of one of b's endpoints get, got "b\/put"$/,
  },
  {
    name: 'a call without an endpoint',
    change: ['- call: b/get', '- call: b'],
    message: /must be of the form service\/endpoint, got "b"$/,
  },
  {
    name: 'a cycle',
    change: ['get: []', 'get: [{ call: a/home }]'],
    message: /endpoints\.home must be free of cycles \(a\/home -> b\/get -> a\/home\), got an array of 2$/,
  },
  {
    name: 'no worker',
    change: ['concurrency: 1', 'concurrency: 0'],
    message: /line 10: services\[0\]\.concurrency must be a whole number from 1 to 10000, got 0$/,
  },
  {
    name: 'a text for a number',
    change: ['median: 1', 'median: fast'],
    message: /serviceTimeMs\.median must be a number from 0 to 60000, got "fast"$/,
  },
  {
    name: 'a wait that ends before it starts',
    change: ['max: 2', 'max: 0'],
    message: /waitSeconds\.max must be a number from 1 to 86400, got 0$/,
  },
  {
    name: 'two services of one name',
    change: ['- name: b', '- name: a'],
    message: /services\[1\]\.name must be the name of no other service, got "a"$/,
  },
  {
    name: 'an entry that is no service',
    change: ['entry: a', 'entry: z'],
    message: /entry must be the name of a service, got "z"$/,
  },
  {
    name: 'a task of an unknown endpoint',
    change: ['requests: [home]', 'requests: [shop]'],
    message: /tasks\.index\.requests\[0\] must be an endpoint of a, got "shop"$/,
  },
  { name: 'a missing part', change: ['onStart: [home]\n', ''], message: /onStart must be a list, got nothing$/ },
] as { name: string; change: [string, string]; message: RegExp }[]) {
  test(`testbed: a topology with ${name} is refused`, () => {
    assert.throws(
      () => parseTopology(GOOD.replace(...change), 'small.yaml'),
      (error: unknown) => {
        assert.ok(error instanceof UsageError)
        assert.match(error.message, message)
        return true
      },
    )
  })
}

test('testbed: a topology that is neither built in nor a file is refused with what there is', () => {
  assert.throws(
    () => loadTopology('bookinfo', '--topology'),
    new UsageError('--topology must be one of online-boutique, sock-shop or a .yaml file, got "bookinfo"'),
  )
})
