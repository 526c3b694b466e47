import { type FSWatcher, readdirSync, readFileSync, statSync, watch } from 'node:fs'
import { join } from 'node:path'

import { UsageError } from '../core/errors.js'

/** Notifications of the file system are a hint that makes it fast; looking again every second makes it certain. */
const RESCAN_MS = 1_000

export interface Watch {
  readonly close: () => void
}

/** The path of each file, and what it holds. */
export type Contents = ReadonlyMap<string, string>

/**
 * Calls `onChange` with the files that are there, at once and whenever one came, changed or went.
 *
 * @throws {UsageError} when `directory` is none
 */
export function watchDirectory(
  {
    directory,
    what,
    accept,
  }: { readonly directory: string; readonly what: string; readonly accept: (name: string) => boolean },
  onChange: (before: Contents, now: Contents) => void,
): Watch {
  if (statSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new UsageError(`${what} must be a directory, got ${JSON.stringify(directory)}`)
  }
  const read = (): Contents => {
    const names = namesIn(directory).filter(accept).sort()
    return new Map(
      names.flatMap((name): [string, string][] => {
        const text = textOf(join(directory, name))
        return text === null ? [] : [[join(directory, name), text]]
      }),
    )
  }
  return rescan(directory, read, onChange)
}

/** Calls `onChange` with the content of one file, or null while there is none, at once and whenever it changed. */
export function watchFile(path: string, onChange: (text: string | null) => void): Watch {
  const read = (): Contents => {
    const text = textOf(path)
    return new Map(text === null ? [] : [[path, text]])
  }
  return rescan(null, read, (_before, now) => onChange(now.get(path) ?? null))
}

function rescan(
  directory: string | null,
  read: () => Contents,
  onChange: (before: Contents, now: Contents) => void,
): Watch {
  let before: Contents = new Map()
  const look = (): void => {
    const now = read()
    const changed = now.size !== before.size || [...now].some(([path, text]) => before.get(path) !== text)
    const last = before
    before = now
    if (changed) onChange(last, now)
  }
  look()
  const timer = setInterval(look, RESCAN_MS)
  let watcher: FSWatcher | undefined
  if (directory !== null) {
    try {
      watcher = watch(directory, look)
      watcher.on('error', () => watcher?.close())
    } catch {
      // No notifications here (inotify's limit, some network file systems): the timer looks all the same.
    }
  }
  return {
    close: () => {
      clearInterval(timer)
      watcher?.close()
    },
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch {
    return [] // taken away while running: every file in it is gone
  }
}

/** Null when there is no such file, or it went between listing and reading. */
function textOf(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}
