import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'

import { UsageError } from '../src/core/errors.js'
import { createFaults } from '../src/testbed/faults.js'
import { seededRandom } from '../src/testbed/random.js'
import {
  decide,
  inWords,
  parseGoDurationMs,
  parseVirtualServices,
  qualifiedHost,
  type VirtualService,
} from '../src/testbed/virtual-service.js'
import { fakeRuntime } from './helpers/fake-runtime.js'

const DELAY_MS = 200
const delay = { delay: { fixedDelay: '0.2s', percentage: { value: 100 } } }
const abort = { abort: { httpStatus: 503, percentage: { value: 100 } } }
const route = [{ destination: { host: 'cartservice' } }]

/** A manifest as JSON, which is YAML too. */
function manifest(http: readonly unknown[], spec: Readonly<Record<string, unknown>> = {}, name = 'cart-fault'): string {
  return JSON.stringify({
    apiVersion: 'networking.istio.io/v1',
    kind: 'VirtualService',
    metadata: { name },
    spec: { hosts: ['cartservice'], http, ...spec },
  })
}

function parse(text: string): readonly VirtualService[] {
  return parseVirtualServices(text, { file: 'fault.yaml', namespace: 'default' }).virtualServices
}

function decision(text: string, from = 'frontend', host = 'cartservice', path = '/get'): ReturnType<typeof decide> {
  const request = { sourceLabels: { app: from }, host: qualifiedHost(host, 'default'), path }
  return decide(parse(text), request, seededRandom(1))
}

const CART = 'cartservice.default.svc.cluster.local'
const UNTOUCHED = { delayMs: 0, abortStatus: null, routed: true, destinationHost: CART }
const DELAYED = { ...UNTOUCHED, delayMs: DELAY_MS }
const fromFrontend = [{ sourceLabels: { app: 'frontend' } }]

for (const { name, text, from, path, expected } of [
  { name: 'delays', text: manifest([{ fault: delay, route }]), expected: DELAYED },
  { name: 'aborts', text: manifest([{ fault: abort, route }]), expected: { ...UNTOUCHED, abortStatus: 503 } },
  {
    name: 'delays and aborts',
    text: manifest([{ fault: { ...delay, ...abort }, route }]),
    expected: { ...DELAYED, abortStatus: 503 },
  },
  {
    name: 'hits the source it names',
    text: manifest([{ match: fromFrontend, fault: delay, route }, { route }]),
    expected: DELAYED,
  },
  {
    name: 'lets other sources fall through to the next route',
    text: manifest([{ match: fromFrontend, fault: delay, route }, { route }]),
    from: 'checkoutservice',
    expected: UNTOUCHED,
  },
  {
    name: 'has no route for a source that nothing matches',
    text: manifest([{ match: fromFrontend, fault: delay, route }]),
    from: 'checkoutservice',
    expected: { ...UNTOUCHED, routed: false },
  },
  {
    name: 'follows the first route that matches',
    text: manifest([{ route }, { fault: delay, route }]),
    expected: UNTOUCHED,
  },
  {
    name: 'takes one of several matches',
    text: manifest([{ match: [{ sourceLabels: { app: 'adservice' } }, ...fromFrontend], fault: delay, route }]),
    expected: DELAYED,
  },
  {
    name: 'needs every condition of a match',
    text: manifest([
      { match: [{ sourceLabels: { app: 'frontend' }, uri: { prefix: '/add' } }], fault: delay, route },
      { route },
    ]),
    expected: UNTOUCHED,
  },
  {
    name: 'matches a prefix',
    text: manifest([{ match: [{ uri: { prefix: '/g' } }], fault: delay, route }]),
    expected: DELAYED,
  },
  {
    name: 'matches an exact path',
    text: manifest([{ match: [{ uri: { exact: '/get' } }], fault: delay, route }, { route }]),
    path: '/get-all',
    expected: UNTOUCHED,
  },
  {
    name: 'matches a regular expression as a whole',
    text: manifest([{ match: [{ uri: { regex: '.*/get' } }], fault: delay, route }, { route }]),
    path: '/get-all',
    expected: UNTOUCHED,
  },
  { name: 'takes a qualified host', text: manifest([{ fault: delay, route }], { hosts: [CART] }), expected: DELAYED },
  {
    name: 'leaves other hosts alone',
    text: manifest([{ fault: delay, route }], { hosts: ['adservice'] }),
    expected: UNTOUCHED,
  },
  {
    name: 'leaves a mesh alone when it is a gateway',
    text: manifest([{ fault: delay, route }], { gateways: ['ingress'] }),
    expected: UNTOUCHED,
  },
  {
    name: 'sends to the destination of the route',
    text: manifest([{ route: [{ destination: { host: 'adservice' } }] }]),
    expected: { ...UNTOUCHED, destinationHost: 'adservice.default.svc.cluster.local' },
  },
  {
    name: 'reads the deprecated percent',
    text: manifest([{ fault: { delay: { fixedDelay: '.2s', percent: 100 } }, route }]),
    expected: DELAYED,
  },
  {
    name: 'hits all requests without a percentage',
    text: manifest([{ fault: { delay: { fixedDelay: '200ms' } }, route }]),
    expected: DELAYED,
  },
  {
    name: 'hits none with a percentage without a value',
    text: manifest([{ fault: { delay: { fixedDelay: '200ms', percentage: {} } }, route }]),
    expected: UNTOUCHED,
  },
]) {
  test(`virtual service: ${name}`, () => {
    assert.deepEqual(decision(text, from, 'cartservice', path), expected)
  })
}

test('virtual service: a percentage hits that share of requests', () => {
  const services = parse(manifest([{ fault: { delay: { fixedDelay: '1s', percentage: { value: 30 } } }, route }]))
  const random = seededRandom(42)
  const request = { sourceLabels: {}, host: CART, path: '/' }
  const hit = Array.from({ length: 2_000 }, () => decide(services, request, random)).filter(
    ({ delayMs }) => delayMs > 0,
  )
  // 600 expected, standard deviation 20.5.
  assert.ok(Math.abs(hit.length - 600) < 4 * 20.5, `${hit.length} of 2000`)
})

test('virtual service: weights share requests among destinations', () => {
  const services = parse(
    manifest([
      {
        route: [
          { destination: { host: 'a' }, weight: 75 },
          { destination: { host: 'b' }, weight: 25 },
          { destination: { host: 'c' }, weight: 0 },
        ],
      },
    ]),
  )
  const random = seededRandom(42)
  const hosts = Array.from(
    { length: 2_000 },
    () => decide(services, { sourceLabels: {}, host: CART, path: '/' }, random).destinationHost,
  )
  const share = hosts.filter((host) => host.startsWith('a.')).length
  assert.ok(Math.abs(share - 1_500) < 4 * 19.4, `${share} of 2000`)
  assert.ok(!hosts.some((host) => host.startsWith('c.')))
})

for (const [text, expected] of [
  ['0.2s', 200],
  ['.2s', 200],
  ['200ms', 200],
  ['1m30s', 90_000],
  ['1.5h', 5_400_000],
  ['0', null],
  ['200', null],
  ['-1s', null],
  ['1 s', null],
  ['s', null],
] as const) {
  test(`virtual service: the Go duration ${text} is ${expected ?? 'refused'}${expected === null ? '' : ' ms'}`, () => {
    assert.equal(parseGoDurationMs(text), expected)
  })
}

for (const { name, text, message } of [
  { name: 'text that is no YAML', text: 'kind: [', message: /^fault\.yaml must be YAML: / },
  {
    name: 'another kind',
    text: 'apiVersion: v1\nkind: Service\n',
    message: /^fault\.yaml, line 2: kind must be VirtualService, got "Service"$/,
  },
  {
    name: 'an unknown field',
    text: manifest([{ fautl: delay, route }]),
    message: /spec\.http\[0\]\.fautl must be absent \(the keys here are name, match, fault, /,
  },
  {
    name: 'a match it cannot judge',
    text: manifest([{ match: [{ headers: {} }], route }]),
    message: /spec\.http\[0\]\.match\[0\]\.headers must be absent/,
  },
  {
    name: 'a delay without a unit',
    text: manifest([{ fault: { delay: { fixedDelay: '5' } }, route }]),
    message: /spec\.http\[0\]\.fault\.delay\.fixedDelay must be a duration of at least 1ms, such as 0\.2s, got "5"$/,
  },
  {
    name: 'a percentage above 100',
    text: manifest([{ fault: { delay: { fixedDelay: '5s', percentage: { value: 101 } } }, route }]),
    message: /percentage\.value must be a number from 0 to 100, got 101$/,
  },
  {
    name: 'an abort without a status',
    text: manifest([{ fault: { abort: { percentage: { value: 1 } } }, route }]),
    message: /abort\.httpStatus must be a whole number from 200 to 599, got nothing$/,
  },
  {
    name: 'a route to nowhere',
    text: manifest([{ fault: delay }]),
    message: /spec\.http\[0\]\.route must be a list, got nothing$/,
  },
  {
    name: 'no hosts',
    text: manifest([], { hosts: [] }),
    message: /spec\.hosts must be at least one host, got an array of 0$/,
  },
  {
    name: 'no name',
    text: manifest([]).replace('"name"', '"labels"'),
    message: /metadata\.name must be a text, got nothing$/,
  },
]) {
  test(`virtual service: ${name} is refused`, () => {
    assert.throws(
      () => parse(text),
      (error: unknown) => {
        assert.ok(error instanceof UsageError)
        assert.match(error.message, message)
        return true
      },
    )
  })
}

test('virtual service: what does nothing here is named', () => {
  const { ignored } = parseVirtualServices(manifest([{ retries: { attempts: 2 }, timeout: '1s', route }]), {
    file: 'fault.yaml',
    namespace: 'default',
  })
  assert.deepEqual(ignored, ['timeout', 'retries'])
})

test('virtual service: every fault file that is shipped is good and delays by 200 ms', () => {
  // Compiled, this file is dist/test/virtual-service.test.js in the package.
  const directory = new URL('../../k8s/faults/', import.meta.url)
  const files = readdirSync(directory).filter((name) => name.endsWith('.yaml'))
  assert.ok(files.length > 0)
  for (const file of files) {
    for (const virtualService of parse(readFileSync(new URL(file, directory), 'utf8'))) {
      assert.match(inWords(virtualService), /^app=\w+ -> \w+: delay of 200 ms for 100 % of requests$/)
    }
  }
})

function faultsWithLog(): { readonly faults: ReturnType<typeof createFaults>; readonly log: () => unknown[] } {
  const { logger, logged } = fakeRuntime([])
  const faults = createFaults({ logger, namespace: 'default', knownHosts: [CART] })
  return {
    faults,
    log: () =>
      logged.map((line) =>
        Object.fromEntries(Object.entries(line).filter(([key]) => key !== 'level' && key !== 'time')),
      ),
  }
}

const IN_WORDS = 'all -> cartservice: delay of 200 ms for 100 % of requests'

test('faults: what is applied is in force until it is removed', () => {
  const { faults, log } = faultsWithLog()
  faults.apply(manifest([{ fault: delay, route }]), 'a.yaml')
  assert.deepEqual(faults.current().map(inWords), [IN_WORDS])
  faults.remove('a.yaml')
  assert.deepEqual(faults.current(), [])
  const about = { file: 'a.yaml', virtualService: 'default/cart-fault', fault: IN_WORDS }
  assert.deepEqual(log(), [
    { ...about, msg: 'fault applied' },
    { ...about, msg: 'fault removed' },
  ])
})

test('faults: the later of two files with the same object replaces the earlier, with a warning', () => {
  const { faults, log } = faultsWithLog()
  faults.apply(manifest([{ fault: delay, route }]), 'a.yaml')
  faults.apply(manifest([{ fault: abort, route }]), 'b.yaml')
  assert.deepEqual(faults.current().map(inWords), ['all -> cartservice: abort with 503 for 100 % of requests'])
  assert.deepEqual(log()[1], {
    virtualService: 'default/cart-fault',
    file: 'b.yaml',
    earlierFile: 'a.yaml',
    msg: 'VirtualService replaced by that of another file',
  })
})

test('faults: a manifest that lost an object takes it out', () => {
  const { faults } = faultsWithLog()
  faults.apply(
    `${manifest([{ fault: delay, route }], {}, 'one')}\n---\n${manifest([{ fault: delay, route }], {}, 'two')}`,
    'a.yaml',
  )
  assert.deepEqual(
    faults.current().map(({ name }) => name),
    ['one', 'two'],
  )
  faults.apply(manifest([{ fault: delay, route }], {}, 'two'), 'a.yaml')
  assert.deepEqual(
    faults.current().map(({ name }) => name),
    ['two'],
  )
})

test('faults: a refused manifest leaves the good version of it in force', () => {
  const { faults } = faultsWithLog()
  faults.apply(manifest([{ fault: delay, route }]), 'a.yaml')
  assert.throws(() => faults.apply('kind: Nonsense', 'a.yaml'), UsageError)
  assert.deepEqual(faults.current().map(inWords), [IN_WORDS])
})

test('faults: a host that the mesh does not have is a warning', () => {
  const { faults, log } = faultsWithLog()
  faults.apply(manifest([{ fault: delay, route }], { hosts: ['cart'] }), 'a.yaml')
  assert.deepEqual(log()[0], {
    virtualService: 'default/cart-fault',
    file: 'a.yaml',
    hosts: ['cart.default.svc.cluster.local'],
    msg: 'no such host in this mesh',
  })
})
