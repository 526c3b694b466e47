import { Agent } from 'node:http'

import type { Clock } from '../io/clock.js'
import { runDaemon } from '../io/daemon.js'
import { pickWeighted, type Random, seedFor, seededRandom } from './random.js'
import { requestStatus } from './sidecar.js'
import type { Range, Task, Topology } from './topology.js'

/** Extra users from `fromSeconds` to `toSeconds` of the run, both ends included, as in the lab's locustfile. */
export interface Transient {
  readonly fromSeconds: number
  readonly toSeconds: number
  readonly users: number
}

/** How many users there are, and when. */
export interface LoadShape {
  /** Users of each step of the cycle; one step is a constant load. */
  readonly steps: readonly number[]
  readonly stepSeconds: number
  readonly transients: readonly Transient[]
}

export interface TargetUsers {
  /** Which step of the cycle, from 1 on. */
  readonly step: number
  /** Of the step alone. */
  readonly users: number
  /** Of the transients in effect. */
  readonly extraUsers: number
}

/** @param seconds - since the start of the run, at least 0 */
export function usersAt(seconds: number, { steps, stepSeconds, transients }: LoadShape): TargetUsers {
  const index = Math.floor(seconds / stepSeconds) % steps.length
  const extraUsers = transients
    .filter(({ fromSeconds, toSeconds }) => seconds >= fromSeconds && seconds <= toSeconds)
    .reduce((sum, { users }) => sum + users, 0)
  return { step: index + 1, users: steps[index] ?? 0, extraUsers }
}

export interface LoadReport {
  readonly runSeconds: number
  readonly step: number
  readonly currentUsers: number
  /** Of the step and all that is added to it. */
  readonly targetUsers: number
  /** Of the transients in effect, and of `setExtraUsers`. */
  readonly extraUsers: number
  /** Users' requests that were answered, and how many of them not with 200. */
  readonly requests: number
  readonly failures: number
}

/** What the lab's Locust shape printed before the run. */
export function openingLines({ steps, stepSeconds }: LoadShape, spawnRate: number): string[] {
  return [
    `Spawn rate is ${spawnRate}`,
    `Cycle time is ${steps.length * stepSeconds}`,
    `Users is ${Math.max(...steps)}`,
    `Number of steps is ${steps.length}`,
    `Seconds per step is ${stepSeconds}`,
  ]
}

/** What it printed each second. Its `target users` were those of the step alone; here they are all that are aimed at. */
export function tickLines(report: LoadReport, before: LoadReport | null): string[] {
  return [
    `run time = ${report.runSeconds.toFixed(1)}`,
    ...(before?.step === report.step ? [] : [`current step in cycle is ${report.step}`]),
    `current users = ${report.currentUsers}`,
    `target users = ${report.targetUsers}`,
    ...(report.extraUsers > 0 ? [`applying ${report.extraUsers} users`] : []),
  ]
}

export interface NextTask {
  readonly task: Task
  /** How long the user waits once it is done. */
  readonly waitSeconds: number
}

/** What a user does next. Two users with the same random do the same. */
export function nextTask(random: Random, tasks: readonly Task[], wait: Range): NextTask {
  return { task: pickWeighted(random, tasks), waitSeconds: wait.min + random() * (wait.max - wait.min) }
}

export interface LoadOptions {
  readonly clock: Clock
  readonly topology: Topology
  readonly port: number
  readonly shape: LoadShape
  readonly waitSeconds: Range
  /** Users that may come or go in a second. */
  readonly spawnRate: number
  readonly seed: number
  /** Called each second. */
  readonly onReport?: ((report: LoadReport) => void) | undefined
}

export interface Load {
  readonly report: () => LoadReport
  readonly setExtraUsers: (users: number) => void
  /** Resolves when every user is gone; needs the service to have cut their connections. */
  readonly close: () => Promise<void>
}

/** How often users come and go. */
const SPAWN_TICK_MS = 100

interface User {
  readonly leave: AbortController
  readonly gone: Promise<void>
}

/** Closed-loop users: each does a task, waits, and does the next; a slow answer makes it ask less. */
export function startLoad(options: LoadOptions): Load {
  const { clock, topology, port, shape, waitSeconds, spawnRate, seed, onReport } = options
  const agent = new Agent({ keepAlive: true })
  const stop = new AbortController()
  const startMs = clock.monotonicMs()
  const present: User[] = []
  const leaving = new Set<Promise<void>>()
  let addedUsers = 0
  let arrivals = 0
  let requests = 0
  let failures = 0

  const live = async (random: Random, { signal }: AbortController): Promise<void> => {
    const left = (): boolean => signal.aborted
    const visit = async (endpoints: readonly string[]): Promise<void> => {
      for (const endpoint of endpoints) {
        if (left()) return
        const status = await requestStatus({ agent, port, path: `/${endpoint}` })
        if (left()) return
        requests++
        if (status !== 200) failures++
      }
    }
    await visit(topology.onStart)
    while (!left()) {
      const { task, waitSeconds: seconds } = nextTask(random, topology.tasks, waitSeconds)
      await visit(task.requests)
      await clock.sleep(seconds * 1_000, signal)
    }
  }
  const arrive = (): void => {
    const leave = new AbortController()
    present.push({ leave, gone: live(seededRandom(seedFor(seed, `user ${arrivals++}`)), leave) })
  }
  const dismiss = (): void => {
    const user = present.pop()
    if (user === undefined) return
    user.leave.abort()
    leaving.add(user.gone)
    void user.gone.finally(() => leaving.delete(user.gone))
  }
  const report = (): LoadReport => {
    const runSeconds = (clock.monotonicMs() - startMs) / 1_000
    const { step, users, extraUsers } = usersAt(runSeconds, shape)
    return {
      runSeconds,
      step,
      currentUsers: present.length,
      targetUsers: users + extraUsers + addedUsers,
      extraUsers: extraUsers + addedUsers,
      requests,
      failures,
    }
  }

  let last: LoadReport | null = null
  let allowance = 0
  const tick = (): Promise<void> => {
    const now = report()
    // By the time that passed, not by the tick: ticks come late when the machine is busy.
    const earned = spawnRate * (last === null ? SPAWN_TICK_MS / 1_000 : now.runSeconds - last.runSeconds)
    // Fractions of a user are saved up, time without a change is not.
    allowance = Math.min(allowance, 1) + earned
    for (; allowance >= 1 && present.length !== now.targetUsers; allowance--) {
      if (present.length < now.targetUsers) arrive()
      else dismiss()
    }
    if (last === null || Math.floor(now.runSeconds) > Math.floor(last.runSeconds)) onReport?.(now)
    last = now
    return Promise.resolve()
  }
  const running = runDaemon({ intervalMs: SPAWN_TICK_MS, clock, signal: stop.signal, tick })

  return {
    report,
    setExtraUsers: (users) => {
      addedUsers = users
    },
    close: async () => {
      stop.abort()
      const all = [...leaving, ...present.map(({ gone }) => gone)]
      for (const { leave } of present.splice(0)) leave.abort()
      agent.destroy()
      await Promise.all([running, ...all])
    },
  }
}
