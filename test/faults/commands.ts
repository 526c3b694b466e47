import { spawn } from 'node:child_process'
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { PROGRAM } from '../helpers/program.js'
import { daemonEnvironment } from './daemon.js'

export interface Ended {
  /** Null: a signal ended it, ours when it took too long. */
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
  readonly tookMs: number
}

export interface RunOptions {
  readonly environment?: Readonly<Record<string, string>>
  readonly through?: readonly string[]
  readonly deadlineMs?: number
}

/** Nothing waits for these, and what else runs is to be on time. */
const PATIENTLY = ['nice', '-n', '10'] as const

/** Runs the real program to its end. */
export function runCommand(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  const { environment, through = [], deadlineMs = 90_000 } = options
  const startMs = performance.now()
  const [command = process.execPath, ...rest] = [...through, ...PATIENTLY, process.execPath, PROGRAM, ...args]
  const child = spawn(command, rest, { env: daemonEnvironment(environment), stdio: ['ignore', 'pipe', 'pipe'] })
  const timer = setTimeout(() => child.kill('SIGKILL'), deadlineMs)
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', (data: Buffer) => (stdout += data.toString()))
  child.stderr.on('data', (data: Buffer) => (stderr += data.toString()))
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => {
      clearTimeout(timer)
      resolve({ code, stdout, stderr, tookMs: performance.now() - startMs })
    })
  })
}

/** A file under a new folder. */
export function fileIn(folder: string, name: string, content: string | Buffer): string {
  mkdirSync(folder, { recursive: true })
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

/** A file that is so long and takes no room. */
export function longFile(folder: string, bytes: number): string {
  const path = fileIn(folder, 'long.json', '{')
  truncateSync(path, bytes)
  return path
}
