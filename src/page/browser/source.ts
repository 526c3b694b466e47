/** The daemon's clock, as far as its answers tell. */
export interface DaemonClock {
  nowSeconds(): number
  heard(dateHeader: string | null): void
}

/** Larger differences are a clock that was set, or a computer that slept. */
const JUMP_SECONDS = 2.5

export function createDaemonClock(): DaemonClock {
  const hereSeconds = (): number => performance.now() / 1000
  let ahead: number | null = null
  return {
    nowSeconds: () => (ahead === null ? Date.now() / 1000 : hereSeconds() + ahead),
    heard: (dateHeader) => {
      const told = Date.parse(dateHeader ?? '') / 1000
      if (!Number.isFinite(told)) return
      // The header is cut to seconds, so of many answers the one furthest ahead is the nearest to the truth.
      const latest = told - hereSeconds()
      ahead = ahead === null || Math.abs(latest - ahead) > JUMP_SECONDS ? latest : Math.max(ahead, latest)
    },
  }
}

/** A JSON document of the daemon's, asked for again and again and sent only when it has changed. */
export interface Source<T> {
  readonly value: () => T | null
  /** Rejects when the daemon cannot be reached or answers with something else. */
  readonly refresh: () => Promise<void>
}

const PATIENCE_MS = 10_000

export function createSource<T>(url: string, clock: DaemonClock): Source<T> {
  let value: T | null = null
  let etag: string | null = null
  return {
    value: () => value,
    refresh: async () => {
      const response = await fetch(url, {
        cache: 'no-store',
        redirect: 'error',
        headers: etag === null ? {} : { 'if-none-match': etag },
        signal: AbortSignal.timeout(PATIENCE_MS),
      })
      clock.heard(response.headers.get('date'))
      if (response.status === 304) return
      if (!response.ok) throw new Error(`${url} was answered with ${response.status}`)
      value = (await response.json()) as T
      etag = response.headers.get('etag')
    },
  }
}

/** An answer to a question that is asked once, or why there is none, in words. */
export type Asked<T> =
  { readonly kind: 'answer'; readonly value: T } | { readonly kind: 'none'; readonly because: string }

/** Never rejects. */
export async function ask<T>(url: string): Promise<Asked<T>> {
  try {
    const response = await fetch(url, {
      cache: 'no-store',
      redirect: 'error',
      signal: AbortSignal.timeout(PATIENCE_MS),
    })
    const value = (await response.json()) as unknown
    if (response.ok) return { kind: 'answer', value: value as T }
    const said = (value as { readonly error?: unknown } | null)?.error
    return { kind: 'none', because: typeof said === 'string' ? said : `the daemon answered ${response.status}` }
  } catch {
    return { kind: 'none', because: 'the daemon does not answer' }
  }
}
