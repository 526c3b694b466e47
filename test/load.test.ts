import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { test, type TestContext } from 'node:test'

import { parseSteps, parseTransient, parseWait } from '../src/commands/testbed.js'
import { UsageError } from '../src/core/errors.js'
import { bind } from '../src/io/http-server.js'
import { loadProfileJson, parseLoadProfile } from '../src/testbed/load-profile.js'
import {
  type Load,
  type LoadProfile,
  type LoadReport,
  type LoadStep,
  nextTask,
  openingLines,
  startLoad,
  tickLines,
  usersAt,
} from '../src/testbed/load.js'
import { lognormal, seedFor, seededRandom } from '../src/testbed/random.js'
import { loadTopology } from '../src/testbed/topology.js'
import { manualClock } from './helpers/manual-clock.js'

function constant(users: number): LoadStep {
  return { fromUsers: users, toUsers: users }
}

const shape = {
  steps: [50, 100, 50, 0].map(constant),
  stepSeconds: 60,
  transients: [
    { fromSeconds: 150, toSeconds: 250, users: 400 },
    { fromSeconds: 240, toSeconds: 300, users: 100 },
  ],
}

for (const { seconds, expected } of [
  { seconds: 0, expected: { step: 1, users: 50, extraUsers: 0 } },
  { seconds: 59.9, expected: { step: 1, users: 50, extraUsers: 0 } },
  { seconds: 60, expected: { step: 2, users: 100, extraUsers: 0 } },
  { seconds: 149.9, expected: { step: 3, users: 50, extraUsers: 0 } },
  { seconds: 150, expected: { step: 3, users: 50, extraUsers: 400 } },
  { seconds: 245, expected: { step: 1, users: 50, extraUsers: 500 } },
  { seconds: 250, expected: { step: 1, users: 50, extraUsers: 500 } },
  { seconds: 250.1, expected: { step: 1, users: 50, extraUsers: 100 } },
  { seconds: 299, expected: { step: 1, users: 50, extraUsers: 100 } },
  { seconds: 480 + 61, expected: { step: 2, users: 100, extraUsers: 0 } },
]) {
  test(`load: at second ${seconds} there are ${expected.users} + ${expected.extraUsers} users`, () => {
    assert.deepEqual(usersAt(seconds, shape), expected)
  })
}

const ramps = {
  steps: [
    { fromUsers: 50, toUsers: 200 },
    { fromUsers: 200, toUsers: 200 },
    { fromUsers: 200, toUsers: 0 },
  ],
  stepSeconds: 60,
  transients: [{ fromSeconds: 6, toSeconds: 12, users: 2.5 }],
}

for (const { seconds, users, extraUsers = 0 } of [
  { seconds: 0, users: 50 },
  { seconds: 0.2, users: 51 }, // 50.5
  { seconds: 6, users: 65, extraUsers: 3 }, // 2.5
  { seconds: 59.9, users: 200 }, // 199.75
  { seconds: 60, users: 200 },
  { seconds: 119, users: 200 },
  { seconds: 150, users: 100 },
  { seconds: 179.9, users: 0 }, // 0.33
  { seconds: 180 + 30, users: 125 },
]) {
  test(`load: at second ${seconds} of ramps there are ${users} + ${extraUsers} users, whole ones`, () => {
    const at = usersAt(seconds, ramps)
    assert.deepEqual([at.users, at.extraUsers], [users, extraUsers])
  })
}

test("load: the most users of a shape with ramps are a ramp's end", () => {
  assert.equal(openingLines(ramps, 10)[2], 'Users is 200')
})

const report: LoadReport = {
  runSeconds: 151.04,
  step: 3,
  currentUsers: 50,
  targetUsers: 450,
  extraUsers: 400,
  requests: 0,
  failures: 0,
}

test("load: a second is printed as the lab's shape printed it", () => {
  assert.deepEqual(tickLines(report, report), [
    'run time = 151.0',
    'current users = 50',
    'target users = 450',
    'applying 400 users',
  ])
  assert.deepEqual(tickLines({ ...report, extraUsers: 0 }, { ...report, step: 2 }), [
    'run time = 151.0',
    'current step in cycle is 3',
    'current users = 50',
    'target users = 450',
  ])
  assert.deepEqual(openingLines(shape, 10), [
    'Spawn rate is 10',
    'Cycle time is 240',
    'Users is 100',
    'Number of steps is 4',
    'Seconds per step is 60',
  ])
})

for (const { name, parse, expected } of [
  {
    name: 'a transient',
    parse: () => parseTransient('150-250:400', '--t'),
    expected: { fromSeconds: 150, toSeconds: 250, users: 400 },
  },
  { name: 'a wait', parse: () => parseWait('1-10', '--w'), expected: { min: 1, max: 10 } },
  { name: 'a constant wait', parse: () => parseWait('0.5', '--w'), expected: { min: 0.5, max: 0.5 } },
  { name: 'steps', parse: () => parseSteps('50,100,0', '--u'), expected: [50, 100, 0].map(constant) },
  {
    name: 'steps with ramps',
    parse: () => parseSteps('50,50-200, 200', '--u'),
    expected: [constant(50), { fromUsers: 50, toUsers: 200 }, constant(200)],
  },
] as { name: string; parse: () => unknown; expected: unknown }[]) {
  test(`load: ${name} is read`, () => {
    assert.deepEqual(parse(), expected)
  })
}

for (const { text, parse, message } of [
  {
    text: '150-250',
    parse: parseTransient,
    message: '--flag must be FROM-TO:USERS in seconds, such as 150-250:400, got "150-250"',
  },
  { text: '250-150:4', parse: parseTransient, message: '--flag must end after it starts, got "250-150:4"' },
  { text: '1-2:99999', parse: parseTransient, message: '--flag must be a whole number from 0 to 10000, got "99999"' },
  { text: '10-1', parse: parseWait, message: '--flag must be MIN-MAX in seconds, such as 1-10, got "10-1"' },
  { text: '-1', parse: parseWait, message: '--flag must be a number from 0 to 864000, got ""' },
  {
    text: '50-100-150',
    parse: parseSteps,
    message: '--flag must be users or FROM-TO, such as 50,50-200,200, got "50-100-150"',
  },
  { text: '50-', parse: parseSteps, message: '--flag must be a whole number from 0 to 10000, got ""' },
  { text: '50,,50', parse: parseSteps, message: '--flag must be a whole number from 0 to 10000, got ""' },
]) {
  test(`load: ${parse.name} refuses ${text}`, () => {
    assert.throws(() => parse(text, '--flag'), new UsageError(message))
  })
}

const boutique = loadTopology('online-boutique', '--topology')

function tasksOf(seed: number, count: number): { readonly name: string; readonly waitSeconds: number }[] {
  const random = seededRandom(seedFor(seed, 'user 0'))
  return Array.from({ length: count }, () => {
    const { task, waitSeconds } = nextTask(random, boutique.tasks, { min: 1, max: 10 })
    return { name: task.name, waitSeconds }
  })
}

test('load: the same seed gives the same tasks and waits, another seed gives others', () => {
  assert.deepEqual(tasksOf(7, 50), tasksOf(7, 50))
  assert.notDeepEqual(tasksOf(7, 50), tasksOf(8, 50))
})

test("load: tasks come with the lab's weights, and waits within their range", () => {
  const draws = tasksOf(1, 19_000)
  const weights = { index: 1, setCurrency: 2, browseProduct: 10, addToCart: 2, viewCart: 3, checkout: 1 }
  for (const [task, weight] of Object.entries(weights)) {
    const count = draws.filter(({ name }) => name === task).length
    assert.ok(Math.abs(count - weight * 1_000) < 5 * Math.sqrt(weight * 1_000), `${task}: ${count}`)
  }
  assert.ok(draws.every(({ waitSeconds }) => waitSeconds >= 1 && waitSeconds < 10))
})

test('load: lognormal draws have the median and the spread they are asked for', () => {
  const random = seededRandom(3)
  const draws = Array.from({ length: 10_000 }, () => lognormal(random, { median: 5, sigma: 0.9 })).sort((a, b) => a - b)
  const at = (quantile: number): number => draws[Math.floor(quantile * draws.length)] ?? NaN
  assert.ok(Math.abs(at(0.5) - 5) < 0.25, `median ${at(0.5)}`)
  assert.ok(Math.abs(at(0.8413) - 5 * Math.exp(0.9)) < 0.8, `one sigma above ${at(0.8413)}`)
})

/** A tick of the spawn clock more or less. */
function near(users: number, expected: number): void {
  assert.ok(Math.abs(users - expected) <= 1, `${users} users, expected ${expected}`)
}

/** Users of the shop on virtual time. Their requests are answered at once. */
async function startUsers(
  context: TestContext,
  profile: LoadProfile,
): Promise<{
  readonly load: Load
  readonly asked: readonly string[]
  readonly reports: readonly LoadReport[]
  readonly advance: (seconds: number) => Promise<number>
}> {
  const asked: string[] = []
  const server = createServer((request, response) => {
    asked.push(request.url ?? '')
    response.end()
  })
  const { port } = await bind(server, { address: '127.0.0.1', port: 0 })
  const clock = manualClock()
  const reports: LoadReport[] = []
  const load = startLoad({
    ...{ clock, topology: boutique, port, profile, seed: 1 },
    onReport: (now) => reports.push(now),
  })
  context.after(async () => {
    server.close()
    server.closeAllConnections()
    await load.close()
  })
  await clock.asleep()
  const advance = async (seconds: number): Promise<number> => {
    for (let tick = 0; tick < seconds * 10; tick++) await clock.advance(100)
    return load.report().currentUsers
  }
  return { load, asked, reports, advance }
}

test('load: users come and go at the spawn rate, and a new one asks for what a browser asks first', async (context) => {
  const { load, asked, reports, advance } = await startUsers(context, {
    shape: {
      steps: [constant(25), constant(0)],
      stepSeconds: 10,
      transients: [{ fromSeconds: 5, toSeconds: 6, users: 100 }],
    },
    spawnRate: 10,
    waitSeconds: { min: 1_000, max: 1_000 },
  })
  near(await advance(1), 10)
  assert.equal(await advance(2), 25)
  near(await advance(3), 35)
  load.setExtraUsers(5)
  assert.equal(await advance(1), 30)
  near(await advance(4), 20)
  assert.deepEqual(
    reports.map(({ targetUsers }) => targetUsers),
    [25, 25, 25, 25, 25, 125, 125, 30, 30, 30, 5, 5],
  )
  assert.equal(asked[0], '/home')
})

test('load: a new profile begins with its second 0, with its own spawn rate', async (context) => {
  const { load, reports, advance } = await startUsers(context, {
    shape: { steps: [constant(4), constant(9)], stepSeconds: 5, transients: [] },
    spawnRate: 100,
    waitSeconds: { min: 1_000, max: 1_000 },
  })
  assert.equal(await advance(7), 9)
  load.setProfile({
    shape: { steps: [{ fromUsers: 10, toUsers: 60 }], stepSeconds: 10, transients: [] },
    spawnRate: 5,
    waitSeconds: null,
  })
  await advance(3)
  assert.deepEqual(
    reports.slice(-3).map(({ targetUsers }) => targetUsers),
    [15, 20, 25],
  )
  near(load.report().currentUsers, 24)
  assert.equal(Math.round(load.report().runSeconds), 10)
})

const PROFILE: LoadProfile = {
  shape: {
    steps: [constant(50), { fromUsers: 50, toUsers: 200 }],
    stepSeconds: 120,
    transients: [{ fromSeconds: 150, toSeconds: 250, users: 400 }],
  },
  spawnRate: 10,
  waitSeconds: { min: 1, max: 10 },
}
const PROFILE_JSON = {
  steps: [
    [50, 50],
    [50, 200],
  ],
  stepSeconds: 120,
  transients: [{ from: 150, to: 250, users: 400 }],
  spawnRate: 10,
  waitSeconds: [1, 10],
}

test('load: a profile is written as Locust and k6 read it, and reads back as the same', () => {
  assert.deepEqual(loadProfileJson(PROFILE), PROFILE_JSON)
  assert.deepEqual(parseLoadProfile(PROFILE_JSON, 'profile.json'), PROFILE)
  const own = { ...PROFILE, waitSeconds: null }
  assert.deepEqual(parseLoadProfile(JSON.parse(JSON.stringify(loadProfileJson(own))), 'profile.json'), own)
})

for (const { name, change, message } of [
  { name: 'no steps', change: { steps: [] }, message: 'profile.json: steps: expected at least one, got none' },
  {
    name: 'a step of one number',
    change: { steps: [[50, 50], [50]] },
    message: 'profile.json: steps[1]: expected two numbers of at least 0, got an array of 1',
  },
  {
    name: 'fewer than no users',
    change: { steps: [[-1, 5]] },
    message: 'profile.json: steps[0]: expected two numbers of at least 0, got an array of 2',
  },
  {
    name: 'a transient that ends before it begins',
    change: { transients: [{ from: 20, to: 10, users: 5 }] },
    message: 'profile.json: transients[0]: to: expected a number of at least 20, got 10',
  },
  {
    name: 'an unknown key',
    change: { users: 5 },
    message: 'profile.json: expected steps, stepSeconds, transients, spawnRate, waitSeconds, got "users"',
  },
  {
    name: 'no spawn rate',
    change: { spawnRate: 0 },
    message: 'profile.json: spawnRate: expected a number of at least 0.001, got 0',
  },
  {
    name: 'waits the wrong way round',
    change: { waitSeconds: [10, 1] },
    message: 'profile.json: waitSeconds: expected the shortest first, got 10 and 1',
  },
]) {
  test(`load: a profile with ${name} is refused`, () => {
    assert.throws(() => parseLoadProfile({ ...PROFILE_JSON, ...change }, 'profile.json'), new UsageError(message))
  })
}
