import { Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'

import axios, { type AxiosInstance } from 'axios'

import type { Access } from './http-config.js'
import type { Runtime } from './runtime.js'
import type { FromFiles } from './secret-file.js'

/** Largest answer of an instant query that is read, after decompression. */
export const MAX_ANSWER_BYTES = 8 * 2 ** 20

export const AGENT_LIMITS = { keepAlive: true, maxSockets: 4 } as const

/**
 * The process's one HTTP client, with nothing automatic: no redirects (they lead to other hosts), no proxies from the
 * environment, bodies as text and bounded in size, and no status turned into an exception.
 */
export function createHttp(): AxiosInstance {
  return axios.create({
    proxy: false,
    maxRedirects: 0,
    maxContentLength: MAX_ANSWER_BYTES,
    maxBodyLength: 2 ** 20,
    responseType: 'text',
    transformResponse: [(body: unknown) => body],
    validateStatus: () => true,
    httpAgent: new HttpAgent(AGENT_LIMITS),
    // Said, so that NODE_TLS_REJECT_UNAUTHORIZED=0 and --tls-min-v1.0 in the environment say nothing.
    httpsAgent: new HttpsAgent({ ...AGENT_LIMITS, rejectUnauthorized: true, minVersion: 'TLSv1.2' }),
  })
}

/** Shorter ones may stand in an answer by chance. */
const MIN_SECRET_LENGTH = 8

/**
 * The same runtime with an HTTP client of its own for one server, or several of a kind: it alone has their credentials, which
 * are looked up anew for each request.
 */
export function withAccess(runtime: Runtime, access: FromFiles<Access> | undefined): Runtime {
  if (access === undefined) return runtime
  const { logger } = runtime
  const http = runtime.http.create()
  let used: Access | null = null
  let secrets: readonly string[] = []
  const current = (): Access => {
    const now = access.current(logger)
    if (now !== used) {
      if (used?.agent) retire(used.agent)
      for (const warning of now.warnings) logger.warn(warning)
      // The last ones, too: an answer to them may be under way.
      secrets = [...now.secrets, ...(used?.secrets ?? [])].filter(({ length }) => length >= MIN_SECRET_LENGTH)
      used = now
    }
    return now
  }
  http.interceptors.request.use((config) => {
    const { agent, authorization, headers } = current()
    if (agent !== null) config.httpsAgent = agent
    for (const { name, value } of headers) config.headers.set(name, value)
    if (authorization !== null) config.headers.set('Authorization', authorization)
    return config
  })
  // What an answer says is repeated in logs and on pages when it is wrong, and some servers repeat what they were sent.
  http.interceptors.response.use((response) => {
    if (typeof response.data === 'string') response.data = withoutTexts(response.data, secrets)
    return response
  })
  return { ...runtime, http }
}

function withoutTexts(text: string, secrets: readonly string[]): string {
  return secrets.reduce((rest, secret) => rest.replaceAll(secret, '<secret>'), text)
}

/** Lets the connections of an agent end: the idle ones now, the others after their answer. */
function retire(agent: HttpsAgent): void {
  agent.maxFreeSockets = 0
  for (const sockets of Object.values(agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy()
}
