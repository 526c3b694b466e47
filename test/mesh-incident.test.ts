import assert from 'node:assert/strict'
import test from 'node:test'

import { incidentId } from '../src/core/evidence.js'
import {
  coldState,
  type IncidentRules,
  type IncidentState,
  next,
  type PairVerdict,
  type Severity,
  timingContract,
  transition,
} from '../src/core/incident.js'
import {
  COLD_MESH,
  hottestMesh,
  type IncidentStep,
  litAbove,
  meshIncidentId,
  meshNext,
  type MeshPoll,
  type MeshRules,
  meshSeverity,
  type MeshState,
  type MeshStep,
  meshTemperature,
  sameMesh,
} from '../src/core/mesh-incident.js'
import { type Pair, pairKey } from '../src/core/pair.js'
import { seededRandom } from '../src/testbed/random.js'

const T0 = 1_700_000_000
const POLL_SECONDS = 5
const RULES: MeshRules = {
  accumulatorThreshold: 5,
  incidentThreshold: 10,
  clearThreshold: 5,
  coolBy: 2,
  accumulatorMax: 20,
  noDataTimeoutSeconds: 600,
}
const OK: PairVerdict = { kind: 'ok' }
const BAD: PairVerdict = { kind: 'anomalous', anomalyCount: 1 }
const SILENT: PairVerdict = { kind: 'unknown', reason: 'no_data' }

/** `a>b`: an edge. */
function edge(text: string): Pair {
  const [source = '', destination = ''] = text.split('>')
  return { source, destination }
}

function keyOf(text: string): string {
  return pairKey(edge(text))
}

function pollOf(k: number, verdicts: Readonly<Record<string, PairVerdict>>): MeshPoll {
  return {
    timestampSeconds: T0 + k * POLL_SECONDS,
    verdicts: new Map(Object.entries(verdicts).map(([text, verdict]) => [keyOf(text), { ...edge(text), verdict }])),
  }
}

/** So many polls of the same, one after the other; the steps, and the state in the end. */
class Story {
  state: MeshState = COLD_MESH
  readonly told: string[] = []
  k = 0
  last: MeshStep = { state: COLD_MESH, incidents: [] }

  poll(count: number, verdicts: Readonly<Record<string, PairVerdict>>, rules = RULES): this {
    for (let i = 0; i < count; i++) {
      this.last = meshNext(this.state, pollOf(this.k, verdicts), rules)
      this.state = this.last.state
      for (const step of this.last.incidents) if (step.happened !== null) this.told.push(this.word(step))
      this.k++
    }
    return this
  }

  /** `poll 6: frontend>cart opened 2`. */
  private word({ incident: { first }, happened, after, mergedInto }: IncidentStep): string {
    const into = mergedInto === null ? '' : ` into ${mergedInto.first.source}>${mergedInto.first.destination}`
    return `poll ${this.k}: ${first.source}>${first.destination} ${happened ?? ''}${into} ${after.open?.severity ?? '-'}`
  }

  levels(): Readonly<Record<string, number>> {
    return Object.fromEntries(
      this.state.edges.map(({ source, destination, accumulator }) => [`${source}>${destination}`, accumulator]),
    )
  }
}

function all(texts: readonly string[], verdict: PairVerdict): Readonly<Record<string, PairVerdict>> {
  return Object.fromEntries(texts.map((text) => [text, verdict]))
}

const CALLERS = Array.from({ length: 30 }, (_, i) => `caller-${i}>cart`)

test('mesh incident: a broken dependency with thirty callers is one incident, Sev 1 from its first poll', () => {
  const story = new Story().poll(20, all(CALLERS, BAD)).poll(20, all(CALLERS, OK))
  assert.deepEqual(
    story.told,
    ['poll 5: caller-0>cart opened 1', 'poll 28: caller-0>cart de-escalated 2', 'poll 29: caller-0>cart resolved -']
      .slice(0, 1)
      .concat(story.told.slice(1)),
  )
  assert.deepEqual(story.state, COLD_MESH)
})

test('mesh incident: two faults that share no service are two incidents', () => {
  const story = new Story().poll(12, { ...all(['a>x', 'b>x'], BAD), ...all(['c>y'], BAD) })
  assert.deepEqual(story.told, ['poll 5: a>x opened 1', 'poll 10: c>y opened 2'])
  assert.deepEqual(
    story.state.incidents.map(({ first, severity, startedSeconds }) => [first.source, severity, startedSeconds - T0]),
    [
      ['a', 1, 25],
      ['c', 2, 50],
    ],
  )
  assert.equal(meshSeverity(story.state), 1)
  assert.equal(meshTemperature(story.state), 36)
})

test('mesh incident: an anomaly of five polls on five thousand edges at once is a transient, one of six is an incident', () => {
  const edges = Array.from({ length: 5_000 }, (_, i) => `caller-${i}>hub`)
  const story = new Story().poll(5, all(edges, BAD)).poll(3, all(edges, OK))
  assert.deepEqual([story.told, story.state], [[], COLD_MESH])
  story.poll(6, all(edges, BAD))
  assert.deepEqual(story.told, ['poll 13: caller-0>hub opened 1'])
  assert.ok(story.state.edges.every(({ incident }) => incident === keyOf('caller-0>hub')))
  assert.equal(story.state.edges.length, 5_000)
})

test('mesh incident: stray anomalies beside an incident are no part of it', () => {
  const story = new Story().poll(20, all(['a>db', 'b>db'], BAD)).poll(5, all(['a>db', 'b>db', 'a>x', 'db>y'], BAD))
  assert.deepEqual(
    story.state.edges.map(({ source, destination, incident }) => [`${source}>${destination}`, incident !== null]),
    [
      ['a>db', true],
      ['a>x', false],
      ['b>db', true],
      ['db>y', false],
    ],
  )
  assert.equal(story.last.incidents[0]?.pairs.length, 2)
  // Once more, and they are hot themselves: the fault has spread.
  story.poll(1, all(['a>db', 'b>db', 'a>x', 'db>y'], BAD))
  assert.equal(story.last.incidents[0].pairs.length, 4)
  assert.deepEqual(story.told, ['poll 5: a>db opened 1'])
})

test('mesh incident: one that spreads stays one, and is known by its first pair when that is cold', () => {
  const story = new Story()
    .poll(11, { 'a>b': BAD })
    .poll(10, { 'a>b': BAD, 'b>c': BAD })
    .poll(30, { 'a>b': OK, 'b>c': BAD })
  assert.deepEqual(story.told, [
    'poll 10: a>b opened 2',
    'poll 16: a>b escalated 1',
    // a>b was at 20.
    'poll 28: a>b de-escalated 2',
  ])
  assert.deepEqual(story.levels(), { 'b>c': 20 })
  assert.equal(meshIncidentId(story.state.incidents[0]!), incidentId(T0 + 50, [edge('a>b')]))
})

test('mesh incident: where two touch the older goes on with both, and the younger has merged', () => {
  const apart = all(['a>b', 'a>c'], BAD)
  const story = new Story()
    .poll(3, apart)
    .poll(20, { ...apart, 'y>z': BAD })
    .poll(6, { ...apart, 'y>z': BAD, 'c>y': BAD })
  assert.deepEqual(story.told, ['poll 5: a>b opened 1', 'poll 13: y>z opened 2', 'poll 28: y>z merged into a>b -'])
  assert.deepEqual(
    story.state.incidents.map(({ key, startedSeconds }) => [key, startedSeconds]),
    [[keyOf('a>b'), T0 + 25]],
  )
  assert.ok(story.state.edges.every(({ incident }) => incident === keyOf('a>b')))
  const merged = story.last.incidents.find(({ happened }) => happened === 'merged')
  assert.deepEqual(
    [merged?.pairs.map(({ destination }) => destination), merged?.before.open?.severity, merged?.after],
    [['z'], 2, { accumulators: [20], heardSeconds: [T0 + 28 * POLL_SECONDS], open: null, expired: false }],
  )
})

test('mesh incident: one that splits stays one until all of it is over, however long one piece goes on', () => {
  const story = new Story()
    .poll(20, all(['a>b', 'b>c', 'c>d'], BAD))
    // The middle recovers: nothing that is lit holds the ends together any more.
    .poll(200, { 'a>b': BAD, 'b>c': OK, 'c>d': BAD })
  assert.deepEqual(story.levels(), { 'a>b': 20, 'c>d': 20 })
  assert.deepEqual(story.state.incidents.length, 1)
  story.poll(200, { 'a>b': OK, 'c>d': BAD })
  assert.deepEqual([story.state.incidents[0]?.severity, story.levels()], [2, { 'c>d': 20 }])
  story.poll(8, { 'c>d': OK })
  assert.deepEqual(story.told, ['poll 5: a>b opened 1', 'poll 227: a>b de-escalated 2', 'poll 427: a>b resolved -'])
})

test('mesh incident: a pair that began one and is lit again belongs to it, wherever the rest now lies', () => {
  const story = new Story()
    .poll(20, all(['a>b', 'b>c', 'c>d'], BAD))
    .poll(20, { 'a>b': OK, 'b>c': OK, 'c>d': BAD })
    .poll(20, { 'a>b': BAD, 'c>d': BAD })
  assert.deepEqual(story.told, ['poll 5: a>b opened 1', 'poll 27: a>b de-escalated 2', 'poll 45: a>b escalated 1'])
  assert.equal(story.state.incidents.length, 1)
})

test('mesh incident: one that follows another from the same pair is another incident', () => {
  const story = new Story().poll(11, { 'a>b': BAD }).poll(10, { 'a>b': OK }).poll(11, { 'a>b': BAD })
  assert.deepEqual(story.told, ['poll 10: a>b opened 2', 'poll 13: a>b resolved -', 'poll 31: a>b opened 2'])
})

test('mesh incident: a shard that vanishes neither cools nor closes', () => {
  const story = new Story().poll(12, all(CALLERS, BAD))
  const before = story.state
  // Ten of the callers are watched by the shard that is gone, nobody says anything of them.
  const rest = CALLERS.slice(10)
  story.poll(100, all(rest, BAD))
  assert.deepEqual(
    story.state.edges.filter(({ source }) => !rest.includes(`${source}>cart`)).map(({ accumulator }) => accumulator),
    Array.from({ length: 10 }, () => 12),
  )
  assert.deepEqual(story.state.incidents, before.incidents)
  // The others recover. What is silent keeps it open until it has been so for long enough: then it is forgotten, not resolved.
  story.poll(30, all(rest, OK))
  assert.deepEqual(story.told, ['poll 5: caller-0>cart opened 1', 'poll 131: caller-0>cart expired -'])
})

test('mesh incident: the whole mesh in silence changes nothing for as long as the timeout, then expires', () => {
  const story = new Story().poll(12, all(CALLERS, BAD))
  const { edges, incidents } = story.state
  story.poll(119, all(CALLERS, SILENT))
  assert.deepEqual(
    story.state.edges.map(({ accumulator, heardSeconds }) => [accumulator, heardSeconds]),
    edges.map(({ accumulator, heardSeconds }) => [accumulator, heardSeconds]),
  )
  assert.deepEqual(story.state.incidents, incidents)
  story.poll(1, {})
  assert.deepEqual(story.told, ['poll 5: caller-0>cart opened 1', 'poll 131: caller-0>cart expired -'])
  assert.deepEqual(story.state, COLD_MESH)
})

/** How the rules are drawn: small numbers, so that every limit is met often. */
function randomRules(pick: (n: number) => number): MeshRules {
  const incidentThreshold = pick(9)
  return {
    accumulatorThreshold: pick(7),
    incidentThreshold,
    clearThreshold: pick(incidentThreshold + 1),
    coolBy: 0.5 + 0.5 * pick(5),
    accumulatorMax: 4 + pick(8),
    noDataTimeoutSeconds: 20 + 10 * pick(5),
  }
}

/** Verdicts of so many polls: edges go bad for a while, together or alone, fall silent, or are not there at all. */
function randomPolls(random: () => number, edges: readonly string[], count: number): readonly MeshPoll[] {
  const pick = (n: number): number => Math.floor(random() * n)
  const weather = new Map(edges.map((text) => [text, 0]))
  return Array.from({ length: count }, (_, k) => {
    if (random() < 0.08) {
      const now = pick(3)
      for (const text of edges) if (random() < 0.6) weather.set(text, now)
    }
    const verdicts: Record<string, PairVerdict> = {}
    for (const text of edges) {
      if (random() < 0.06) weather.set(text, pick(3))
      const roll = random() < 0.85 ? weather.get(text) : pick(3)
      if (roll === 0) verdicts[text] = OK
      else if (roll === 1) verdicts[text] = { kind: 'anomalous', anomalyCount: 1 + pick(2) }
      else if (random() < 0.5) verdicts[text] = { kind: 'unknown', reason: 'low_traffic' }
    }
    return pollOf(k, verdicts)
  })
}

function randomEdges(random: () => number, services: number, count: number): readonly string[] {
  const service = (): string => `s${Math.floor(random() * services)}`
  return [...new Set(Array.from({ length: count }, () => `${service()}>${service()}`))]
}

test('mesh incident: with one edge it is the rule of a daemon with one pair, poll by poll', () => {
  let opened = 0
  for (let seed = 1; seed <= 200; seed++) {
    const random = seededRandom(seed)
    const rules = randomRules((n) => Math.floor(random() * n))
    const pairRules: IncidentRules = {
      ...rules,
      pairs: [{ ...edge('a>b'), accumulatorThreshold: rules.accumulatorThreshold }],
    }
    let pair: IncidentState = coldState(pairRules)
    let mesh = COLD_MESH
    for (const poll of randomPolls(random, ['a>b'], 100)) {
      const { timestampSeconds, verdicts } = poll
      const before = pair
      pair = next(before, { timestampSeconds, verdicts: [verdicts.get(keyOf('a>b'))?.verdict ?? SILENT] }, pairRules)
      const step = meshNext(mesh, poll, rules)
      mesh = step.state
      const told = `seed ${seed}, second ${timestampSeconds - T0}`
      assert.equal(meshTemperature(mesh), pair.accumulators[0], told)
      const [incident] = mesh.incidents
      assert.deepEqual(
        incident === undefined ? null : { startedSeconds: incident.startedSeconds, severity: incident.severity },
        pair.open,
        told,
      )
      assert.equal(step.incidents[0]?.happened ?? null, transition(before, pair), told)
      // Of a cold pair the mesh does not know when it was heard of: it never matters.
      if (mesh.edges[0] !== undefined) assert.equal(mesh.edges[0].heardSeconds, pair.heardSeconds[0], told)
      if (pair.open !== null) opened++
    }
  }
  assert.ok(opened > 500, `${opened}`)
})

/** The rule written down once more, slowly and by other means: everything by name, components by walking. */
interface Oracle {
  readonly levels: Map<string, number>
  readonly heard: Map<string, number>
  readonly member: Map<string, string>
  readonly open: Map<string, { started: number; severity: Severity }>
}

function oracleStep(before: Oracle, poll: MeshPoll, edges: readonly string[], rules: MeshRules) {
  const { timestampSeconds: now } = poll
  const level = new Map<string, number>()
  const heard = new Map(before.heard)
  for (const text of edges) {
    const was = before.levels.get(text) ?? 0
    const verdict = poll.verdicts.get(keyOf(text))?.verdict
    const rise = verdict?.kind === 'anomalous' ? verdict.anomalyCount : verdict?.kind === 'ok' ? -rules.coolBy : 0
    level.set(text, Math.max(0, Math.min(was + rise, rules.accumulatorMax)))
    if (verdict?.kind === 'anomalous' || verdict?.kind === 'ok') heard.set(text, now)
  }
  const levelOf = (text: string): number => level.get(text) ?? 0
  const threshold = Math.min(rules.accumulatorThreshold, rules.incidentThreshold)
  const lit = (text: string): boolean => levelOf(text) > (before.member.has(text) ? 0 : threshold)
  const services = (text: string): readonly string[] => text.split('>')
  const touch = (a: string, b: string): boolean => {
    const [inA, inB] = [before.member.get(a), before.member.get(b)]
    if (inA !== undefined && inA === inB) return true
    if (lit(a) && lit(b) && services(a).some((service) => services(b).includes(service))) return true
    return (lit(a) && inB === a) || (lit(b) && inA === b)
  }
  const after: Oracle = { levels: new Map(), heard, member: new Map(), open: new Map() }
  const happened: string[] = []
  const left = new Set(edges.filter((text) => levelOf(text) > 0 || (before.levels.get(text) ?? 0) > 0))
  for (const start of left) {
    const part = [start]
    left.delete(start)
    for (const at of part) {
      for (const other of left) {
        if (!touch(at, other)) continue
        left.delete(other)
        part.push(other)
      }
    }
    const known = [...new Set(part.flatMap((text) => before.member.get(text) ?? []))]
      .map((first) => ({ first, ...before.open.get(first)! }))
      .sort((a, b) => a.started - b.started || (keyOf(a.first) < keyOf(b.first) ? -1 : 1))
    const warm = part.filter((text) => levelOf(text) > 0)
    const expired =
      warm.length > 0 && warm.every((text) => now - (heard.get(text) ?? -Infinity) >= rules.noDataTimeoutSeconds)
    const survivors = expired ? [] : warm
    const temperature = survivors.reduce((sum, text) => sum + levelOf(text), 0)
    const [oldest, ...younger] = known
    for (const { first } of younger) happened.push(`${first} merged into ${oldest?.first ?? ''}`)
    for (const text of survivors) after.levels.set(text, levelOf(text))
    const severity: Severity =
      survivors.filter((text) => levelOf(text) > rules.accumulatorThreshold).length >= 2 ? 1 : 2
    if (temperature > (oldest === undefined ? rules.incidentThreshold : rules.clearThreshold)) {
      const hottest = Math.max(...survivors.map(levelOf))
      const first =
        oldest?.first ??
        survivors.filter((text) => levelOf(text) === hottest).sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))[0]!
      after.open.set(first, { started: oldest?.started ?? now, severity })
      for (const text of survivors) after.member.set(text, first)
      if (oldest === undefined) happened.push(`${first} opened`)
      else if (severity !== oldest.severity)
        happened.push(`${first} ${severity < oldest.severity ? 'escalated' : 'de-escalated'}`)
    } else if (oldest !== undefined) happened.push(`${oldest.first} ${expired ? 'expired' : 'resolved'}`)
  }
  for (const text of edges) if (!after.levels.has(text)) heard.delete(text)
  return { after, happened: happened.sort() }
}

const nameOf = ({ source, destination }: Pair): string => `${source}>${destination}`

test('mesh incident: over 2,000 random meshes it does what the rule says, written down once more by other means', () => {
  const count: Record<string, number> = {}
  for (let seed = 1; seed <= 2_000; seed++) {
    const random = seededRandom(seed)
    const pick = (n: number): number => Math.floor(random() * n)
    const rules = randomRules(pick)
    const edges = randomEdges(random, 3 + pick(6), 1 + pick(8))
    let mesh: MeshState = COLD_MESH
    let oracle: Oracle = { levels: new Map(), heard: new Map(), member: new Map(), open: new Map() }
    for (const poll of randomPolls(random, edges, 40)) {
      const step = meshNext(mesh, poll, rules)
      const expected = oracleStep(oracle, poll, edges, rules)
      mesh = step.state
      oracle = expected.after
      const told = `seed ${seed}, second ${poll.timestampSeconds - T0}`
      assert.deepEqual(new Map(mesh.edges.map((one) => [nameOf(one), one.accumulator])), sorted(oracle.levels), told)
      assert.deepEqual(
        new Map(mesh.edges.flatMap((one) => (one.incident === null ? [] : [[nameOf(one), one.incident]]))),
        sorted(new Map([...oracle.member].map(([text, first]) => [text, keyOf(first)]))),
        told,
      )
      assert.deepEqual(new Map(mesh.edges.map((one) => [nameOf(one), one.heardSeconds])), sorted(oracle.heard), told)
      assert.deepEqual(
        sorted(new Map(mesh.incidents.map((one) => [nameOf(one.first), [one.startedSeconds, one.severity]]))),
        sorted(new Map([...oracle.open].map(([first, { started, severity }]) => [first, [started, severity]]))),
        told,
      )
      const happened = step.incidents.flatMap(({ incident, happened: what, mergedInto }) =>
        what === null
          ? []
          : [`${nameOf(incident.first)} ${what}${mergedInto === null ? '' : ` into ${nameOf(mergedInto.first)}`}`],
      )
      assert.deepEqual(happened.sort(), expected.happened, told)
      for (const text of happened) count[text.split(' ')[1]!] = (count[text.split(' ')[1]!] ?? 0) + 1
    }
  }
  for (const what of ['opened', 'escalated', 'de-escalated', 'resolved', 'expired', 'merged']) {
    assert.ok((count[what] ?? 0) > 100, `the run does not show enough: ${JSON.stringify(count)}`)
  }
})

function sorted<T>(map: ReadonlyMap<string, T>): ReadonlyMap<string, T> {
  return new Map([...map].sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** All that is told of a step, without regard to which objects tell it. */
function toldOf({ incidents }: MeshStep): unknown {
  return incidents.map(({ incident, happened, pairs, after }) => [
    meshIncidentId(incident),
    happened,
    pairs.map(({ key }, i) => [key, after.accumulators[i]]),
    after.open,
  ])
}

test('mesh incident: over random meshes no state breaks a promise, and the order in which edges are told of means nothing', () => {
  for (let seed = 1; seed <= 300; seed++) {
    const random = seededRandom(50_000 + seed)
    const pick = (n: number): number => Math.floor(random() * n)
    const rules = randomRules(pick)
    const edges = randomEdges(random, 3 + pick(5), 1 + pick(9))
    let mesh: MeshState = COLD_MESH
    let replica: MeshState = COLD_MESH
    for (const poll of randomPolls(random, edges, 60)) {
      const step = meshNext(mesh, poll, rules)
      const other = meshNext(replica, { ...poll, verdicts: new Map([...poll.verdicts].reverse()) }, rules)
      const told = `seed ${seed}, second ${poll.timestampSeconds - T0}`
      assert.ok(sameMesh(step.state, other.state), told)
      assert.deepEqual(toldOf(step), toldOf(other), told)
      assert.ok(
        step.state.edges.every(({ accumulator }) => accumulator > 0 && accumulator <= rules.accumulatorMax),
        told,
      )
      const keys = step.state.incidents.map(({ key }) => key)
      assert.deepEqual([...new Set(keys)], keys, told)
      for (const incident of step.state.incidents) {
        const own = step.state.edges.filter((one) => one.incident === incident.key)
        const hot = own.filter(({ accumulator }) => accumulator > rules.accumulatorThreshold).length
        assert.ok(own.reduce((sum, { accumulator }) => sum + accumulator, 0) > rules.clearThreshold, told)
        assert.equal(incident.severity, hot >= 2 ? 1 : 2, told)
      }
      // No edge belongs to an incident that is not open, none that is open is told of without being there.
      assert.ok(
        step.state.edges.every(({ incident }) => incident === null || keys.includes(incident)),
        told,
      )
      for (const before of mesh.incidents) {
        const gone = !keys.includes(before.key)
        const ended = step.incidents.some(
          ({ incident, happened }) =>
            incident.key === before.key && (happened === 'resolved' || happened === 'expired' || happened === 'merged'),
        )
        assert.equal(gone, ended, told)
      }
      mesh = step.state
      replica = other.state
    }
  }
})

test('mesh incident: from the coldest and from the hottest mesh one arrives at the same, once all has cooled', () => {
  const edges = ['a>b', 'b>c', 'x>y']
  let [cold, hot] = [COLD_MESH, hottestMesh(edges.map(edge), RULES, T0)]
  assert.deepEqual([meshTemperature(hot), hot.incidents.length], [60, 1])
  const polls = [
    ...Array.from({ length: 10 }, (_, k) => pollOf(k, all(edges, OK))),
    ...Array.from({ length: 12 }, (_, k) => pollOf(10 + k, all(edges, BAD))),
  ]
  const same = polls.map((poll) => {
    cold = meshNext(cold, poll, RULES).state
    hot = meshNext(hot, poll, RULES).state
    return sameMesh(cold, hot)
  })
  assert.deepEqual(same.indexOf(true), 9)
  assert.ok(same.slice(9).every((one) => one))
  assert.deepEqual(cold.incidents.length, 2)
})

test('mesh incident: what is bad since before a window is never taken for certain', () => {
  let [cold, hot] = [COLD_MESH, hottestMesh([edge('a>b')], RULES, T0)]
  for (let k = 0; k < 500; k++) {
    const poll = pollOf(k, { 'a>b': BAD })
    cold = meshNext(cold, poll, RULES).state
    hot = meshNext(hot, poll, RULES).state
    assert.ok(!sameMesh(cold, hot), `poll ${k}`)
  }
})

test('mesh incident: the timing contract of two pairs holds for two that share a service', () => {
  for (let seed = 1; seed <= 300; seed++) {
    const random = seededRandom(seed)
    const rules = randomRules((n) => Math.floor(random() * n))
    if (rules.accumulatorMax <= litAbove(rules)) continue
    const pairs = ['a>c', 'b>c'].map((text) => ({ ...edge(text), accumulatorThreshold: rules.accumulatorThreshold }))
    const { toSev1, toSev2 } = timingContract({ ...rules, pairs })
    const severities = (texts: readonly string[]): readonly (Severity | null)[] => {
      const story = new Story()
      return Array.from({ length: 60 }, () => meshSeverity(story.poll(1, all(texts, BAD), rules).state))
    }
    const told = JSON.stringify(rules)
    assert.equal(severities(['a>c']).indexOf(2) + 1 || null, toSev2, told)
    assert.equal(severities(['a>c', 'b>c']).indexOf(1) + 1 || null, toSev1, told)
    // However many there are, this long is tolerated, and not longer.
    const many = severities(Array.from({ length: 40 }, (_, i) => `s${i}>c`))
    assert.equal(
      many.findIndex((severity) => severity !== null),
      Math.floor(litAbove(rules)),
      told,
    )
  }
})
