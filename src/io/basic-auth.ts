import { createHmac, randomBytes } from 'node:crypto'
import { Worker } from 'node:worker_threads'

/** User -> bcrypt hash of the password. */
export type Users = ReadonlyMap<string, string>

export type Decision = 'allowed' | 'refused' | 'busy'

export interface BasicAuth {
  /**
   * Whether an Authorization header names one of the users with the right password. `busy` when too many others wait to be told.
   *
   * @param isGone - says that nobody waits for the answer any more
   */
  readonly decide: (header: string | undefined, users: Users, isGone: () => boolean) => Promise<Decision>
}

/** A hash of this cost takes about three seconds. */
export const MAX_BCRYPT_COST = 15

export function isBcryptHash(text: string): boolean {
  const [, cost] = /^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$/.exec(text) ?? []
  return cost !== undefined && Number(cost) >= 4 && Number(cost) <= MAX_BCRYPT_COST
}

/** How many decisions are remembered, of each kind: what is guessed cannot push out what is right. */
const REMEMBERED = 100

/** How many may wait for a hash. */
const MAX_WAITING = 10

/**
 * Basic authentication against bcrypt hashes, which are slow on purpose: they are worked on beside the event loop, one at a time
 * whatever comes, and each decision is remembered under a keyed hash of the credentials. An unknown user takes as long as a
 * known one.
 */
export function createBasicAuth(compare: Compare = compareInWorker): BasicAuth {
  const key = randomBytes(32)
  const allowed = createMemory()
  const refused = createMemory()
  let waiting = 0
  let last: Promise<unknown> = Promise.resolve()

  return {
    decide: async (header, users, isGone) => {
      const credentials = credentialsIn(header)
      const [anyHash] = users.values()
      if (credentials === null || anyHash === undefined) return 'refused'
      const { user, password } = credentials
      const known = users.get(user)
      const hash = known ?? anyHash
      const mark = createHmac('sha256', key)
        .update(JSON.stringify([known !== undefined, hash, password]))
        .digest('base64')
      const remembered = (): Decision | null => (allowed.has(mark) ? 'allowed' : refused.has(mark) ? 'refused' : null)
      const atOnce = remembered()
      if (atOnce !== null) return atOnce
      if (waiting >= MAX_WAITING) return 'busy'
      waiting++
      const work = last.then(async (): Promise<Decision> => {
        // Whoever came before may have asked the same.
        const decided = remembered()
        if (decided !== null) return decided
        if (isGone()) return 'busy'
        const matches = await compare(password, hash)
        const right = known !== undefined && matches
        ;(right ? allowed : refused).add(mark)
        return right ? 'allowed' : 'refused'
      })
      last = work.catch(() => undefined)
      return work.finally(() => waiting--)
    },
  }
}

export type Compare = (password: string, hash: string) => Promise<boolean>

async function compareInWorker(password: string, hash: string): Promise<boolean> {
  const worker = new Worker(new URL('./bcrypt-worker.js', import.meta.url), { workerData: { password, hash } })
  try {
    return await new Promise<boolean>((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
      worker.once('exit', (code) => reject(new Error(`the worker that hashes ended with code ${code}, no answer`)))
    })
  } finally {
    await worker.terminate()
  }
}

function credentialsIn(header: string | undefined): { readonly user: string; readonly password: string } | null {
  const [, encoded] = /^basic +([A-Za-z0-9+/]+=*)$/i.exec(header ?? '') ?? []
  if (encoded === undefined) return null
  const text = Buffer.from(encoded, 'base64').toString('utf8')
  const colon = text.indexOf(':')
  return colon < 0 ? null : { user: text.slice(0, colon), password: text.slice(colon + 1) }
}

/** The last few that were added. */
function createMemory(): { has(mark: string): boolean; add(mark: string): void } {
  const marks = new Set<string>()
  return {
    has: (mark) => marks.has(mark),
    add: (mark) => {
      marks.add(mark)
      const [oldest] = marks
      if (marks.size > REMEMBERED && oldest !== undefined) marks.delete(oldest)
    },
  }
}
