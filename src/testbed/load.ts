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

/** A part of the cycle, over which users go evenly from one number to the other; a step when they are the same. */
export interface LoadStep {
  readonly fromUsers: number
  readonly toUsers: number
}

/** How many users there are, and when. */
export interface LoadShape {
  /** The cycle, at least one; one of equal numbers is a constant load. */
  readonly steps: readonly LoadStep[]
  readonly stepSeconds: number
  readonly transients: readonly Transient[]
}

/** The shape, and the users who follow it. */
export interface LoadProfile {
  readonly shape: LoadShape
  /** Users that may come or go in a second. */
  readonly spawnRate: number
  /** How long a user waits between tasks; null for the application's own. */
  readonly waitSeconds: Range | null
}

export interface TargetUsers {
  /** Which step of the cycle, from 1 on. */
  readonly step: number
  /** Of the step alone. */
  readonly users: number
  /** Of the transients in effect. */
  readonly extraUsers: number
}

/**
 * Whole users: what lies between two is rounded, a half up.
 *
 * @param seconds - since the start of the shape, at least 0
 */
export function usersAt(seconds: number, { steps, stepSeconds, transients }: LoadShape): TargetUsers {
  const begun = Math.floor(seconds / stepSeconds)
  const index = begun % steps.length
  const { fromUsers, toUsers } = steps[index] ?? { fromUsers: 0, toUsers: 0 }
  const extraUsers = transients
    .filter(({ fromSeconds, toSeconds }) => seconds >= fromSeconds && seconds <= toSeconds)
    .reduce((sum, { users }) => sum + users, 0)
  return {
    step: index + 1,
    users: Math.round(fromUsers + (toUsers - fromUsers) * (seconds / stepSeconds - begun)),
    extraUsers: Math.round(extraUsers),
  }
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
    `Users is ${Math.max(...steps.flatMap(({ fromUsers, toUsers }) => [fromUsers, toUsers]))}`,
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
  readonly profile: LoadProfile
  readonly seed: number
  /** Called each second. */
  readonly onReport?: ((report: LoadReport) => void) | undefined
}

export interface Load {
  readonly report: () => LoadReport
  readonly setExtraUsers: (users: number) => void
  /** Another shape, from its second 0 on, and other habits of the users who are there. */
  readonly setProfile: (profile: LoadProfile) => void
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
  const { clock, topology, port, seed, onReport } = options
  const agent = new Agent({ keepAlive: true })
  const stop = new AbortController()
  const startMs = clock.monotonicMs()
  let profile = options.profile
  let profileStartMs = startMs
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
      const { task, waitSeconds: seconds } = nextTask(
        random,
        topology.tasks,
        profile.waitSeconds ?? topology.waitSeconds,
      )
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
    const nowMs = clock.monotonicMs()
    const { step, users, extraUsers } = usersAt((nowMs - profileStartMs) / 1_000, profile.shape)
    return {
      runSeconds: (nowMs - startMs) / 1_000,
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
    const earned = profile.spawnRate * (last === null ? SPAWN_TICK_MS / 1_000 : now.runSeconds - last.runSeconds)
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
    setProfile: (next) => {
      profile = next
      profileStartMs = clock.monotonicMs()
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
