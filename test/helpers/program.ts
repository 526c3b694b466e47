import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'

export const PROGRAM = fileURLToPath(new URL('../../src/main.js', import.meta.url))

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

type Line = Readonly<Record<string, unknown>>

export interface RunningProgram {
  readonly exit: Promise<Exit>
  readonly kill: (signal: NodeJS.Signals) => void
  /** The next line logged from now on (or, the first time, since the start) for which `matches` holds. */
  readonly logged: (what: string, matches: (line: Line) => boolean) => Promise<Line>
}

/** Starts the real program. It sees no variable of ours but PATH and those given. */
export function startProgram(
  t: TestContext,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): RunningProgram {
  const child = spawn(process.execPath, [PROGRAM, ...args], {
    env: { PATH: process.env['PATH'] ?? '', ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.after(() => child.kill('SIGKILL'))
  let stdout = ''
  let stderr = ''
  child.stderr.on('data', (data: Buffer) => (stderr += data.toString()))
  const unread: Line[] = []
  const waiting = new Set<{
    readonly matches: (line: Line) => boolean
    readonly found: (line: Line) => void
    readonly gone: () => void
  }>()
  createInterface({ input: child.stdout }).on('line', (text) => {
    stdout += `${text}\n`
    if (!text.startsWith('{')) return
    const line = JSON.parse(text) as Line
    unread.push(line)
    for (const waiter of waiting) {
      if (!waiter.matches(line)) continue
      waiting.delete(waiter)
      unread.length = 0
      waiter.found(line)
    }
  })
  const exit = new Promise<Exit>((resolve) => {
    child.once('close', (code, signal) => {
      for (const { gone } of waiting) gone()
      resolve({ code, signal, stdout, stderr })
    })
  })
  return {
    exit,
    kill: (signal) => child.kill(signal),
    logged: (what, matches) =>
      new Promise((resolve, reject) => {
        const index = unread.findIndex(matches)
        const line = unread[index]
        if (line !== undefined) {
          unread.splice(0, index + 1)
          resolve(line)
          return
        }
        const gone = (): void => reject(new Error(`the program ended before it logged ${what}:\n${stdout}${stderr}`))
        if (child.exitCode !== null) gone()
        else waiting.add({ matches, found: resolve, gone })
      }),
  }
}

/** Runs the real program to its end. */
export function runProgram(
  t: TestContext,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<Exit> {
  return startProgram(t, args, environment).exit
}
