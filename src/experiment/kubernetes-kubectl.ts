import { spawn } from 'node:child_process'

import { StartError } from '../core/errors.js'
import type { Runtime } from '../io/runtime.js'
import { findProgram } from '../testbed/installed-program.js'

/** The user's kubectl on one context. */
export interface Kubectl {
  readonly path: string
  /** What goes before every command. */
  readonly contextArgs: readonly string[]
  /**
   * Runs a command and resolves with what it printed.
   *
   * @throws {KubectlError} when it ends with anything but 0, is cut off, or takes too long
   */
  readonly run: (args: readonly string[], options?: RunOptions) => Promise<string>
  /** The same command for people to type. */
  readonly inWords: (args: readonly string[]) => string
}

export interface RunOptions {
  readonly input?: string
  /** For the whole command; the limits' own unless given. */
  readonly limitMs?: number
  /** Cuts the command off. Without one it ends by itself or at its limit. */
  readonly signal?: AbortSignal
  /** How long it may go on once the signal aborts: what has been sent to a cluster is better told to its end. */
  readonly graceMs?: number
}

/** A command that did not do what it should. The message has kubectl's own words. */
export class KubectlError extends StartError {
  readonly stdout: string
  readonly stderr: string

  constructor(message: string, said: { readonly stdout: string; readonly stderr: string }) {
    super(message)
    this.stdout = said.stdout
    this.stderr = said.stderr
  }
}

/** Kubectl's own limit ends before ours, so that it can say which request was slow. */
const BEFORE_OUR_LIMIT_MS = 1_000
const KEPT_CHARACTERS = 600

/** @throws {StartError} in one line that says how to get it */
export function findKubectl({ program }: Pick<Runtime, 'program'>): string {
  const found = findProgram('kubectl', program)
  if (found !== undefined) return found
  throw new StartError(
    'kubectl is needed and was not found: put it on the PATH (https://kubernetes.io/docs/tasks/tools/), ' +
      'or apt-get install kubernetes-client (Debian, Ubuntu), brew install kubectl (macOS)',
  )
}

/**
 * @param options.context - null for commands that are about the kubeconfig alone
 * @param options.limitMs - for a command, unless it says otherwise
 */
export function kubectlOn(
  { program }: Pick<Runtime, 'program'>,
  options: { readonly path: string; readonly context: string | null; readonly limitMs: number },
): Kubectl {
  const { path, context } = options
  const contextArgs = context === null ? [] : ['--context', context]
  const inWords = (args: readonly string[]): string => ['kubectl', ...contextArgs, ...args].map(shellWord).join(' ')
  return {
    path,
    contextArgs,
    inWords,
    run: async (args, { input, limitMs = options.limitMs, signal, graceMs = 0 } = {}) => {
      const requestSeconds = Math.max(1, Math.floor((limitMs - BEFORE_OUR_LIMIT_MS) / 1000))
      const all = [...contextArgs, ...(context === null ? [] : [`--request-timeout=${requestSeconds}s`]), ...args]
      const ended = await runToEnd(path, all, { env: program.environment, input, limitMs, signal, graceMs })
      if (ended.kind === 'ended' && ended.code === 0) return ended.stdout
      throw new KubectlError(`${inWords(args)}: ${howItEnded(ended, limitMs)}`, ended)
    },
  }
}

/** Kubectl's words for its own time limit, which depend on where it was. */
const TIMED_OUT = /Client\.Timeout exceeded|context deadline exceeded/

function howItEnded(ended: Ended, limitMs: number): string {
  if (ended.kind === 'failed') return ended.reason
  const said = shortened(ended.stderr)
  if (ended.cut === 'signal') return 'interrupted'
  if (ended.cut === 'limit' || TIMED_OUT.test(said)) return `no answer within ${Math.round(limitMs / 1000)} s`
  return said === '' ? `it ended with ${ended.code ?? 'a signal'} and said nothing` : said
}

type Ended =
  | {
      readonly kind: 'ended'
      readonly code: number | null
      readonly cut: 'limit' | 'signal' | null
      readonly stdout: string
      readonly stderr: string
    }
  | { readonly kind: 'failed'; readonly reason: string; readonly stdout: string; readonly stderr: string }

/** Runs a program to its end, whatever that is. Never rejects. */
export function runToEnd(
  path: string,
  args: readonly string[],
  options: {
    readonly env: Readonly<Record<string, string | undefined>>
    readonly input?: string | undefined
    readonly limitMs: number
    readonly signal?: AbortSignal | undefined
    readonly graceMs?: number | undefined
  },
): Promise<Ended> {
  const { env, input, limitMs, signal, graceMs = 0 } = options
  if (signal?.aborted === true)
    return Promise.resolve({ kind: 'ended', code: null, cut: 'signal', stdout: '', stderr: '' })
  return new Promise((resolve) => {
    // A group of its own: Ctrl-C on a terminal goes to every process of ours, and would cut a command that cleans up.
    const child = spawn(path, args, { env, stdio: ['pipe', 'pipe', 'pipe'], detached: true })
    let cut: 'limit' | 'signal' | null = null
    let stdout = ''
    let stderr = ''
    const kill = (why: 'limit' | 'signal'): void => {
      cut ??= why
      child.kill('SIGKILL')
    }
    const limit = setTimeout(kill, limitMs, 'limit')
    let grace: NodeJS.Timeout | undefined
    const interrupt = (): void => {
      grace = setTimeout(kill, graceMs, 'signal')
    }
    signal?.addEventListener('abort', interrupt, { once: true })
    const over = (ended: Ended): void => {
      clearTimeout(limit)
      clearTimeout(grace)
      signal?.removeEventListener('abort', interrupt)
      resolve(ended)
    }
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    child.once('error', (error) => over({ kind: 'failed', reason: error.message, stdout, stderr }))
    child.once('close', (code) => over({ kind: 'ended', code, cut, stdout, stderr }))
    // A program that ends before it has read everything says why by itself.
    child.stdin.on('error', () => undefined)
    child.stdin.end(input ?? '')
  })
}

/** One line of a program's own words. */
export function shortened(text: string): string {
  const lines = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('Warning:') && !isClientNoise(line))
  const all = lines.join(' | ')
  return all.length > KEPT_CHARACTERS ? `${all.slice(0, KEPT_CHARACTERS)}...` : all
}

/** Lines of kubectl's logger about a discovery that it tries again: the last line says the same in words. */
function isClientNoise(line: string): boolean {
  return /^[EWI]\d{4} /.test(line)
}

function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`
}
