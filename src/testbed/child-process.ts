import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

import { StartError } from '../core/errors.js'
import type { Program } from '../io/runtime.js'

/** A program that runs beside us and is ended by this handle. */
export interface Child {
  readonly name: string
  readonly pid: number
  /** Resolves with the first line, past or future, that `match` turns into something. Rejects when the process ends before. */
  waitForLine<T>(match: (line: string) => T | undefined): Promise<T>
  /** Resolves with the exit code, or null when a signal ended it. */
  readonly exited: Promise<number | null>
  hasEnded(): boolean
  signal(name: NodeJS.Signals): void
  /** Asks it to end, insists after a while, and resolves with the exit code. Safe to call twice. */
  stop(): Promise<number | null>
}

export interface ChildOptions {
  readonly name: string
  readonly command: string
  readonly args: readonly string[]
  readonly environment?: Program['environment']
  /** Ctrl-C on the terminal goes to a group of processes; one of its own lives until it is stopped. */
  readonly ownGroup?: boolean
  /** Told of each line of its output as it comes. */
  readonly onLine?: ((line: string) => void) | undefined
}

const running = new Set<ChildProcess>()

/** Kills at once what was started here and still runs. For the end of our own process, when nothing can be waited for. */
export function killChildren(): void {
  for (const child of running) child.kill('SIGKILL')
}

/** Lines kept for messages about a process that ended, and for who asks late. */
const KEPT_LINES = 2_000
const INSIST_AFTER_MS = 8_000

export function startChild({ name, command, args, environment, ownGroup = false, onLine }: ChildOptions): Child {
  const process = spawn(command, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: ownGroup,
    ...(environment === undefined ? {} : { env: environment }),
  })
  running.add(process)
  process.once('close', () => running.delete(process))
  const lines: string[] = []
  const listeners = new Set(onLine === undefined ? [] : [onLine])
  for (const stream of [process.stdout, process.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line)
      if (lines.length > KEPT_LINES) lines.shift()
      for (const listener of [...listeners]) listener(line)
    })
  }
  const exited = exitOf(process, name)
  exited.catch(() => undefined) // whoever waits hears of it
  const ended = exited.then((code): never => {
    throw new StartError(
      `${name} ended with ${code ?? 'a signal'}: ${lines.slice(-3).join(' | ') || 'it said nothing'}`,
    )
  })
  ended.catch(() => undefined)
  const hasEnded = (): boolean => process.exitCode !== null || process.signalCode !== null
  return {
    name,
    pid: process.pid ?? -1,
    exited,
    waitForLine: <T>(match: (line: string) => T | undefined) => {
      for (const line of lines) {
        const found = match(line)
        if (found !== undefined) return Promise.resolve(found)
      }
      let listener: (line: string) => void
      const seen = new Promise<T>((resolve) => {
        listener = (line) => {
          const found = match(line)
          if (found !== undefined) resolve(found)
        }
        listeners.add(listener)
      })
      return Promise.race([seen, ended]).finally(() => listeners.delete(listener))
    },
    hasEnded,
    signal: (signal) => {
      process.kill(signal)
    },
    stop: async () => {
      if (hasEnded()) return exited
      process.kill('SIGTERM')
      const insist = setTimeout(() => process.kill('SIGKILL'), INSIST_AFTER_MS)
      return exited.finally(() => {
        clearTimeout(insist)
      })
    },
  }
}

async function exitOf(process: ChildProcess, name: string): Promise<number | null> {
  try {
    const [code] = (await once(process, 'close')) as [number | null]
    return code
  } catch (error) {
    throw new StartError(`cannot start ${name}: ${(error as Error).message}`, { cause: error })
  }
}

/** The URL on which one of our own commands serves, as its log says. */
export function listeningUrl(line: string): string | undefined {
  const url = logged(line, 'listening')?.['url']
  return typeof url === 'string' ? url : undefined
}

/** The event of a JSON log line, when it is the one with this message. */
export function logged(line: string, message: string): LogEvent | undefined {
  const event = eventOf(line)
  return event?.['msg'] === message ? event : undefined
}

/** A line of a log in JSON. */
export type LogEvent = Readonly<Record<string, unknown>>

/** The event of a line; undefined when it is none, or torn because its process was killed. */
export function eventOf(line: string): LogEvent | undefined {
  if (!line.startsWith('{')) return undefined
  try {
    return JSON.parse(line) as LogEvent
  } catch {
    return undefined
  }
}
