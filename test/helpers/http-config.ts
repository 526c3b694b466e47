import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'

import type { Vector } from '../../src/core/series.js'
import { createHttp, withAccess } from '../../src/io/http-client.js'
import { readHttpConfigFile } from '../../src/io/http-config.js'
import { type Answer, queryInstant } from '../../src/io/prometheus.js'
import { type FakeRuntime, fakeRuntime, vectorAnswer } from './fake-runtime.js'
import { temporaryFolder } from './temporary-folder.js'

/** What every Prometheus here answers to every query. */
export const GOOD = vectorAnswer([{ metric: { quantile: '0.5' }, value: '8.19' }])

export interface Client {
  readonly folder: string
  readonly logged: FakeRuntime['logged']
  /** Writes a file beside the configuration. */
  readonly write: (name: string, content: string) => void
  /** Asks; on virtual time, so that no deadline passes. */
  readonly ask: (url?: string, query?: string) => Promise<Answer<Vector>>
  readonly advance: (ms: number) => Promise<void>
}

/** A client with a configuration file, and with files that this names. */
export function clientFor(
  t: TestContext,
  url: string,
  config: string,
  files: Readonly<Record<string, string>> = {},
): Client {
  const folder = temporaryFolder(t)
  const write = (name: string, content: string): void => writeFileSync(join(folder, name), content)
  for (const [name, content] of Object.entries({ ...files, 'http.yml': config })) write(name, content)
  const fake: FakeRuntime = { ...fakeRuntime([]), http: createHttp() }
  const flag = '--prometheus-http-config-file'
  const runtime = withAccess(fake, readHttpConfigFile(join(folder, 'http.yml'), { flag, urls: [url] }))
  return {
    folder,
    logged: fake.logged,
    write,
    ask: (prometheusUrl = url, query = 'up') => queryInstant(runtime, { prometheusUrl, query, deadlineMs: 4_000 }),
    advance: (ms) => fake.clock.advance(ms),
  }
}

/** `outcome: detail` of a failure, `ok` of an answer. */
export function said(answer: Answer<unknown>): string {
  return answer.kind === 'answer' ? 'ok' : `${answer.outcome}: ${answer.detail}`
}
