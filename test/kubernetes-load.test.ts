import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'

import { loadObjects } from '../src/experiment/kubernetes-load.js'
import { loadProfileJson, parseLoadProfile } from '../src/testbed/load-profile.js'
import { type LoadProfile, usersAt } from '../src/testbed/load.js'
import { brokenPodRules, schemaOf, title, typeErrors, type Workload } from './helpers/kubernetes-schemas.js'
import { packageRoot } from './helpers/package-root.js'
import { temporaryFolder } from './helpers/temporary-folder.js'

const LOAD = join(packageRoot(), 'k8s/load')
const LAB = parseLoadProfile(JSON.parse(readFileSync(join(LOAD, 'profile.json'), 'utf8')), 'profile.json')

/** Ramps, halves of users, seconds that are no whole ones, and transients that overlap. */
const CROOKED: LoadProfile = {
  shape: {
    steps: [
      { fromUsers: 50, toUsers: 50 },
      { fromUsers: 50, toUsers: 200 },
      { fromUsers: 201, toUsers: 0 },
      { fromUsers: 0, toUsers: 7 },
    ],
    stepSeconds: 14.5,
    transients: [
      { fromSeconds: 10, toSeconds: 30, users: 40 },
      { fromSeconds: 20.5, toSeconds: 40.5, users: 25 },
    ],
  },
  spawnRate: 1000,
  waitSeconds: null,
}

/** At every other half second it is half a user. */
const HALVES: LoadProfile = {
  shape: { steps: [{ fromUsers: 0, toUsers: 20 }], stepSeconds: 20, transients: [] },
  spawnRate: 1000,
  waitSeconds: null,
}

const PROFILES = [
  { name: "the lab's", profile: LAB, seconds: 2400 },
  { name: 'a crooked', profile: CROOKED, seconds: 120 },
  { name: "the halves'", profile: HALVES, seconds: 40 },
] as const

/** The load's files in a folder of the test's own, with another profile. */
function filesWith(t: TestContext, profile: LoadProfile): string {
  const folder = temporaryFolder(t)
  for (const file of ['locustfile.py', 'k6.js']) copyFileSync(join(LOAD, file), join(folder, file))
  writeFileSync(join(folder, 'profile.json'), JSON.stringify(loadProfileJson(profile)))
  return folder
}

test("load: profile.json is the lab's cycle and its transients", () => {
  assert.deepEqual(
    LAB.shape.steps.map(({ fromUsers, toUsers }) => [fromUsers, toUsers]),
    [50, 100, 150, 200, 250, 200, 150, 100, 50, 0].map((users) => [users, users]),
  )
  assert.deepEqual(
    LAB.shape.transients.map(({ fromSeconds, toSeconds, users }) => [users, fromSeconds, toSeconds]),
    [
      [400, 150, 250],
      [1000, 500, 550],
      [800, 1000, 1050],
      [400, 1250, 1350],
    ],
  )
  assert.deepEqual([LAB.shape.stepSeconds, LAB.spawnRate, LAB.waitSeconds], [120, 10, { min: 1, max: 10 }])
})

// Locust -----------------------------------------------------------------------------------------------------------------------

const python = spawnSync('python3', ['--version']).status === 0
const skipPython = python ? false : 'python3 is not on the PATH'

/** As much of Locust as the file uses. A user's requests are noted; a catalogue has two things in it. */
const LOCUST_STUB = `
REQUESTS = []

class Response:
    def __init__(self, path):
        self.path = path
    def json(self):
        return [{"id": "sock-1"}, {"id": "sock-1"}] if self.path.startswith("/catalogue?page") else None

class Client:
    def _note(self, method, path, **more):
        REQUESTS.append([method, path, more])
        return Response(path)
    def get(self, path, **more):
        return self._note("GET", path, **more)
    def post(self, path, **more):
        return self._note("POST", path, **more)
    def delete(self, path, **more):
        return self._note("DELETE", path, **more)

class FastHttpUser:
    abstract = True
    def __init__(self):
        self.client = Client()

class LoadTestShape:
    seconds = 0
    def get_run_time(self):
        return self.seconds

def between(low, high):
    return [low, high]
`

function runPython(folder: string, code: string, environment: Readonly<Record<string, string>> = {}) {
  writeFileSync(join(folder, 'locust.py'), LOCUST_STUB)
  const { status, stdout, stderr } = spawnSync('python3', ['-c', `import sys; sys.path.insert(0, ".")\n${code}`], {
    cwd: folder,
    encoding: 'utf8',
    env: { PATH: process.env['PATH'], PYTHONDONTWRITEBYTECODE: '1', ...environment },
  })
  return { status, stderr, answer: status === 0 ? (JSON.parse(stdout) as unknown) : null }
}

for (const { name, profile, seconds } of PROFILES) {
  test(
    `Locust: at each half second of ${name} profile there are as many users as on the testbed`,
    { skip: skipPython },
    (t) => {
      const { answer, stderr } = runPython(
        filesWith(t, profile),
        `
import json, locustfile
shape = locustfile.ProfileShape()
ticks = []
for half in range(${seconds * 2} + 1):
    shape.seconds = half / 2
    ticks.append(shape.tick())
print(json.dumps(ticks))`,
      )
      assert.equal(stderr, '')
      const expected = Array.from({ length: seconds * 2 + 1 }, (_, half) => {
        const { users, extraUsers } = usersAt(half / 2, profile.shape)
        return [users + extraUsers, profile.spawnRate]
      })
      assert.deepEqual(answer, expected)
    },
  )
}

test('Locust: users of Online Boutique do what its own load generator does, as often', { skip: skipPython }, (t) => {
  const { answer, stderr } = runPython(
    filesWith(t, LAB),
    `
import json, random, locust, locustfile
random.seed(1)
kind = locustfile.OnlineBoutiqueUser
found = {}
def noted(name, task):
    locust.REQUESTS.clear()
    task(kind())
    found[name] = [method + " " + (more.get("name") or path) for method, path, more in locust.REQUESTS]
noted("start", kind.on_start)
for task in kind.tasks:
    noted(task.__name__, task)
bodies = [more["data"] for method, path, more in locust.REQUESTS if path == "/cart/checkout"]
print(json.dumps({
    "abstract": [kind.abstract, locustfile.SockShopUser.abstract],
    "wait": kind.wait_time,
    "weights": {task.__name__: weight for task, weight in kind.tasks.items()},
    "requests": found,
    "fields": sorted(bodies[0]),
}))`,
  )
  assert.equal(stderr, '')
  assert.deepEqual(answer, {
    abstract: [false, true],
    wait: [1, 10],
    weights: { index: 1, set_currency: 2, browse_product: 10, add_to_cart: 2, view_cart: 3, checkout: 1 },
    requests: {
      start: ['GET /'],
      index: ['GET /'],
      set_currency: ['POST /setCurrency'],
      browse_product: ['GET /product/[id]'],
      add_to_cart: ['GET /product/[id]', 'POST /cart'],
      view_cart: ['GET /cart'],
      checkout: ['GET /product/[id]', 'POST /cart', 'POST /cart/checkout'],
    },
    fields: [
      'city',
      'country',
      'credit_card_cvv',
      'credit_card_expiration_month',
      'credit_card_expiration_year',
      'credit_card_number',
      'email',
      'state',
      'street_address',
      'zip_code',
    ],
  })
})

/** What users of Sock Shop ask for, in both generators. */
const SOCK_SHOP_REQUESTS = {
  home: ['GET /', 'GET /catalogue', 'GET /cart'],
  login: ['GET /login', 'GET /', 'GET /catalogue', 'GET /cart'],
  browse: [
    'GET /category.html',
    'GET /tags',
    'GET /catalogue/size',
    'GET /catalogue',
    'GET /cart',
    'GET /detail.html',
    'GET /catalogue/[id]',
    'GET /cart',
  ],
  cart: ['GET /catalogue', 'GET /detail.html', 'GET /catalogue/[id]', 'GET /cart', 'POST /cart'],
  basket: ['GET /basket.html', 'GET /cart', 'GET /card', 'GET /address'],
} as const

const ORDER = ['GET /login', 'DELETE /cart', ...SOCK_SHOP_REQUESTS.cart, ...SOCK_SHOP_REQUESTS.basket, 'POST /orders']

test(
  'Locust: users of Sock Shop walk through it, and order one item when they are logged in',
  { skip: skipPython },
  (t) => {
    const { answer, stderr } = runPython(
      filesWith(t, CROOKED),
      `
import json, locust, locustfile
kind = locustfile.SockShopUser
found = {}
for task in [kind.on_start, *kind.tasks]:
    locust.REQUESTS.clear()
    task(kind())
    found[task.__name__] = [method + " " + (more.get("name") or path) for method, path, more in locust.REQUESTS]
print(json.dumps({
    "abstract": [locustfile.OnlineBoutiqueUser.abstract, kind.abstract],
    "wait": kind.wait_time,
    "weights": [weight for weight in kind.tasks.values()],
    "requests": found,
    "login": [more["headers"] for method, path, more in locust.REQUESTS if path == "/login"],
    "put": [more["json"] for method, path, more in locust.REQUESTS if method + path == "POST/cart"],
}))`,
      { APPLICATION: 'sock-shop' },
    )
    assert.equal(stderr, '')
    assert.deepEqual(answer, {
      abstract: [true, false],
      wait: [1, 10],
      weights: [1, 2, 10, 2, 3, 1],
      requests: {
        on_start: SOCK_SHOP_REQUESTS.home,
        home: SOCK_SHOP_REQUESTS.home,
        login: SOCK_SHOP_REQUESTS.login,
        browse: SOCK_SHOP_REQUESTS.browse,
        put_into_cart: SOCK_SHOP_REQUESTS.cart,
        basket: SOCK_SHOP_REQUESTS.basket,
        order: ORDER,
      },
      login: [{ Authorization: `Basic ${Buffer.from('user:password').toString('base64')}` }],
      put: [{ id: 'sock-1', quantity: 1 }],
    })
  },
)

test('Locust: another application is refused', { skip: skipPython }, (t) => {
  const { status, stderr } = runPython(filesWith(t, LAB), 'import locustfile', { APPLICATION: 'bookinfo' })
  assert.equal(status, 1)
  assert.match(stderr, /APPLICATION must be online-boutique or sock-shop, got bookinfo/)
})

// k6 ---------------------------------------------------------------------------------------------------------------------------

interface Stage {
  readonly duration: string
  readonly target: number
}

interface K6 {
  readonly options: {
    readonly noCookiesReset: boolean
    readonly scenarios: Readonly<
      Record<
        string,
        {
          readonly executor: string
          readonly exec: string
          readonly startVUs: number
          readonly startTime?: string
          readonly stages: readonly Stage[]
          readonly gracefulRampDown: string
          readonly gracefulStop: string
        }
      >
    >
  }
  readonly onlineBoutique: () => void
  readonly sockShop: () => void
}

interface K6Stub {
  readonly requests: { method: string; url: string; body: unknown; name: string }[]
  readonly slept: number[]
}

/** Imports the script as k6 would, with the modules of k6 that it uses in the place where Node looks for them. */
async function importK6(t: TestContext, folder: string, environment: Readonly<Record<string, string>>) {
  const stub: K6Stub = { requests: [], slept: [] }
  const modules = join(folder, 'node_modules/k6')
  mkdirSync(modules, { recursive: true })
  const files = {
    'package.json': JSON.stringify({
      type: 'module',
      exports: { '.': './k6.js', './http': './http.js', './encoding': './encoding.js' },
    }),
    'k6.js': 'export const sleep = (seconds) => void globalThis.k6Stub.slept.push(seconds)',
    'encoding.js': 'export default { b64encode: (text) => btoa(text) }',
    'http.js': `
      const send = (method) => (url, body, params) => {
        globalThis.k6Stub.requests.push({ method, url, body, name: params.tags.name })
        return { status: 200, body: url.includes('/catalogue?page') ? '[{"id":"sock-1"}]' : '' }
      }
      export default {
        get: (url, params) => send('GET')(url, null, params),
        post: send('POST'),
        del: send('DELETE'),
      }`,
  }
  for (const [file, text] of Object.entries(files)) writeFileSync(join(modules, file), text)
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
  const names = { k6Stub: stub, __ENV: environment, open: (path: string) => readFileSync(join(folder, path), 'utf8') }
  Object.assign(globalThis, names)
  t.after(() => {
    for (const name of Object.keys(names)) Reflect.deleteProperty(globalThis, name)
  })
  const script = (await import(join(folder, 'k6.js'))) as K6
  return { script, stub }
}

const secondsOf = (duration: string): number => Number(/^(\d+)s$/.exec(duration)?.[1])

/** Users of a scenario, each second: k6 goes evenly from one stage's target to the next. */
function usersOf(
  { startVUs, startTime = '0s', stages }: K6['options']['scenarios'][string],
  seconds: number,
): number[] {
  const users: number[] = new Array<number>(secondsOf(startTime)).fill(0)
  let level = startVUs
  for (const { duration, target } of stages) {
    const length = secondsOf(duration)
    for (let second = 0; second < length; second++) users.push(level + ((target - level) * second) / length)
    level = target
  }
  while (users.length < seconds) users.push(level)
  return users.slice(0, seconds)
}

for (const { name, profile, seconds } of [
  ...PROFILES,
  { name: 'a slow', profile: { ...CROOKED, spawnRate: 3 }, seconds: 120 },
]) {
  test(`k6: users follow ${name} profile, as fast as the spawn rate lets them come and go`, async (t) => {
    const { script } = await importK6(t, filesWith(t, profile), { DURATION_SECONDS: String(seconds) })
    const { scenarios } = script.options
    const names = ['cycle', ...profile.shape.transients.map((_, i) => `transient_${i + 1}`)]
    assert.deepEqual(Object.keys(scenarios), names)
    const without = { ...profile.shape, transients: [] }
    const only = (i: number) => ({
      ...profile.shape,
      steps: [{ fromUsers: 0, toUsers: 0 }],
      transients: [profile.shape.transients[i]!],
    })
    for (const [index, scenario] of names.entries()) {
      const { executor, gracefulRampDown, gracefulStop } = scenarios[scenario]!
      assert.deepEqual([executor, gracefulRampDown, gracefulStop], ['ramping-vus', '0s', '0s'])
      const shape = index === 0 ? without : only(index - 1)
      const users = usersOf(scenarios[scenario]!, seconds)
      // As the testbed's own load would: towards what is wanted, at most the spawn rate a second.
      let level = 0
      for (let second = 0; second < seconds; second++) {
        assert.ok(
          Math.abs(users[second]! - level) <= 1,
          `${scenario}, second ${second}: ${users[second]!} users and not ${level}`,
        )
        const { users: wanted, extraUsers } = usersAt(second, shape)
        const total = wanted + extraUsers
        level = Math.min(Math.max(total, level - profile.spawnRate), level + profile.spawnRate)
      }
    }
  })
}

test("k6: between the changes of the lab's profile there are exactly as many users as on the testbed", async (t) => {
  const seconds = 1500
  const { script } = await importK6(t, filesWith(t, LAB), { DURATION_SECONDS: String(seconds) })
  const all = Object.values(script.options.scenarios).map((scenario) => usersOf(scenario, seconds))
  const wantedAt = (second: number): number => {
    const { users, extraUsers } = usersAt(second, LAB.shape)
    return users + extraUsers
  }
  let settled = 0
  for (let second = 0; second < seconds; second++) {
    // 1000 users need 100 s to come; the longest that something is the same is a step.
    const calm = Array.from({ length: 101 }, (_, i) => second - i).every(
      (at) => at >= 0 && wantedAt(at) === wantedAt(second),
    )
    if (!calm) continue
    settled++
    const users = all.reduce((sum, each) => sum + each[second]!, 0)
    assert.equal(users, wantedAt(second), `second ${second}`)
  }
  assert.ok(settled > 50, `only ${settled} seconds compared`)
})

test('k6: users of Online Boutique do what its own load generator does, as often', async (t) => {
  const { script, stub } = await importK6(t, filesWith(t, LAB), { TARGET_URL: 'http://shop' })
  assert.equal(script.options.noCookiesReset, true)
  assert.equal(script.options.scenarios['cycle']!.exec, 'onlineBoutique')
  const counts = new Map<string, number>()
  const walks = 4000
  for (let walk = 0; walk < walks; walk++) {
    stub.requests.length = 0
    script.onlineBoutique()
    const done = stub.requests.map(({ method, name }) => `${method} ${name}`).join(', ')
    counts.set(done, (counts.get(done) ?? 0) + 1)
    for (const { url } of stub.requests) assert.ok(url.startsWith('http://shop/'), url)
  }
  assert.ok(stub.slept.every((slept) => slept >= 1 && slept <= 10))
  const cart = 'GET /product/[id], POST /cart'
  const shares = {
    'GET /': 1,
    'POST /setCurrency': 2,
    'GET /product/[id]': 10,
    [cart]: 2,
    'GET /cart': 3,
    [`${cart}, POST /cart/checkout`]: 1,
  }
  // The first thing that a user does is to look at the first page, once.
  const first = [...counts].filter(([, count]) => count === 1).map(([done]) => done)
  assert.ok(
    first.every((done) => done.startsWith('GET /, ') || done === 'GET /'),
    first.join(' | '),
  )
  for (const [done, weight] of Object.entries(shares)) {
    const share = (counts.get(done) ?? 0) / walks
    assert.ok(Math.abs(share - weight / 19) < 0.04, `${done}: ${share}`)
  }
})

test('k6: users of Sock Shop ask for the same as those of Locust', async (t) => {
  const { script, stub } = await importK6(t, filesWith(t, LAB), {
    APPLICATION: 'sock-shop',
    TARGET_URL: 'http://front-end',
  })
  assert.equal(script.options.scenarios['cycle']!.exec, 'sockShop')
  const seen = new Set<string>()
  script.sockShop()
  for (let walk = 0; walk < 500; walk++) {
    stub.requests.length = 0
    script.sockShop()
    seen.add(stub.requests.map(({ method, name }) => `${method} ${name}`).join(', '))
  }
  const { home, login, browse, cart, basket } = SOCK_SHOP_REQUESTS
  const expected = [home, login, browse, cart, basket, ORDER].map((requests) => requests.join(', '))
  assert.deepEqual([...seen].sort(), expected.sort())
})

test('k6: another application and an endless run are refused', async (t) => {
  await assert.rejects(importK6(t, filesWith(t, LAB), { APPLICATION: 'bookinfo' }), {
    message: 'APPLICATION must be online-boutique or sock-shop, got bookinfo',
  })
  await assert.rejects(importK6(t, filesWith(t, LAB), { DURATION_SECONDS: 'for ever' }), {
    message: 'DURATION_SECONDS must be a positive number, got NaN',
  })
})

// What an experiment applies ---------------------------------------------------------------------------------------------------

for (const { tool, image, file, variable, user } of [
  { tool: 'locust', image: 'locustio/locust:9', file: 'locustfile.py', variable: 'LOCUST_HOST', user: 1000 },
  { tool: 'k6', image: 'grafana/k6:9', file: 'k6.js', variable: 'TARGET_URL', user: 12345 },
] as const) {
  test(`load: what an experiment applies for ${tool} is k8s/load with its own profile, image and names`, () => {
    const objects = loadObjects({
      settings: { loadGenerator: { tool, image }, frontendUrl: 'http://front-end' },
      application: 'sock-shop',
      profile: CROOKED,
      runId: 'r1',
      number: 2,
      atMostSeconds: 99.5,
    })
    assert.deepEqual(objects.map(title), ['ConfigMap meshfever-load-r1-2', 'Deployment meshfever-load-r1-2'])
    const inNamespace = objects.map((object) => ({ ...object, metadata: { ...object.metadata, namespace: 'n' } }))
    for (const object of inNamespace) assert.doesNotThrow(() => schemaOf(object).validate(object), title(object))
    assert.deepEqual(typeErrors(inNamespace), [])
    const [config, deployment] = objects
    assert.deepEqual(config!['data'], {
      [file]: readFileSync(join(LOAD, file), 'utf8'),
      'profile.json': JSON.stringify(loadProfileJson(CROOKED)),
    })
    for (const { metadata } of objects) {
      const { labels = {} } = metadata
      assert.deepEqual(
        [labels['app.kubernetes.io/managed-by'], labels['meshfever-run'], labels['meshfever-part']],
        ['meshfever-experiment', 'r1', 'meshfever-load-r1-2'],
      )
    }
    const workload = deployment as unknown as Workload
    assert.deepEqual(brokenPodRules(workload, { user }), [])
    const [container] = workload.spec.template.spec.containers
    assert.equal(container!.image, image)
    const environment = new Map(
      (container!['env'] as readonly { name: string; value: string }[]).map(({ name, value }) => [name, value]),
    )
    assert.equal(environment.get('APPLICATION'), 'sock-shop')
    assert.equal(environment.get(variable), 'http://front-end')
    assert.equal(environment.get('DURATION_SECONDS'), tool === 'k6' ? '100' : undefined)
    assert.equal(workload.spec.template.spec.volumes?.[0]?.configMap?.name, 'meshfever-load-r1-2')
    assert.deepEqual(workload.spec.selector.matchLabels, { 'app.kubernetes.io/instance': 'meshfever-load-r1-2' })
    assert.equal(workload.spec.template.metadata.labels['app.kubernetes.io/instance'], 'meshfever-load-r1-2')
    assert.equal((workload.spec as unknown as { replicas: number }).replicas, 1)
  })
}
