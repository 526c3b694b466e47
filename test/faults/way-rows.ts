/* Names, certificates, proxies and limits on the way to Prometheus: daemons of their own that are told to take that way. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'

import type { PollOutcome } from '../../src/core/reading.js'
import { type Authority, type Certificate, createAuthority, selfSignedCertificate } from '../helpers/certificates.js'
import { closedUrl } from '../helpers/local-server.js'
import { type Bench, isCalm, type Lane, monitorArgs, POLL_SECONDS, stopSurely, withLane } from './bench.js'
import { fileIn } from './commands.js'
import { type Daemon, startDaemon, until } from './daemon.js'
import { startFaultProxy } from './fault-proxy.js'
import { alarming, assertNoSecret, facts, meet, risen } from './judge.js'
import type { Row } from './row.js'

interface Way {
  readonly url: string
  readonly environment?: Readonly<Record<string, string>>
  readonly through?: readonly string[]
}

async function withMonitor<T>(bench: Bench, { url, ...how }: Way, work: (monitor: Daemon) => Promise<T>): Promise<T> {
  const args = [...monitorArgs(bench, url), ...bench.prometheusAccess]
  const monitor = await startDaemon({ ...how, args, started: bench.owns })
  try {
    return await work(monitor)
  } finally {
    await stopSurely(monitor.child)
  }
}

/** Everything is as without a fault. */
async function works(bench: Bench, way: Way): Promise<string> {
  return withMonitor(bench, way, async (monitor) => {
    await isCalm(monitor)
    const before = await monitor.metrics()
    const now = await until('3 more polls', async () => {
      const metrics = await monitor.metrics()
      return (risen(before, metrics)['ok'] ?? 0) >= 3 ? metrics : undefined
    })
    assert.deepEqual(risen(before, now), { ok: risen(before, now)['ok'] })
    await assertNoSecret(monitor)
    return `monitor: ok ×${risen(before, now)['ok'] ?? 0}`
  })
}

/** No poll ever succeeds, and all of them for this reason. */
async function failsAs(bench: Bench, way: Way, outcome: PollOutcome, detail: RegExp): Promise<string> {
  return withMonitor(bench, way, async (monitor) => {
    const metrics = await until(
      `3 polls that come to ${outcome}`,
      async () => {
        const now = await monitor.metrics()
        return (risen(new Map(), now)[outcome] ?? 0) >= 3 ? now : undefined
      },
      { told: () => monitor.lines.slice(-3).join('\n') },
    )
    assert.deepEqual(Object.keys(risen(new Map(), metrics)), [outcome])
    const values = Object.keys(facts(metrics)).filter((name) => !/^lab7_(verdict|anomalies_total)/.test(name))
    assert.deepEqual(values, [])
    const [line, ...others] = alarming(monitor.events()).filter(({ msg }) => String(msg).startsWith('polls'))
    assert.match(String(line?.['detail']), detail)
    assert.deepEqual(others, [])
    assert.equal((await monitor.get('/healthz')).status, 200)
    assert.equal((await monitor.get('/readyz')).status, 503)
    await assertNoSecret(monitor)
    return `monitor: ${outcome} ×${risen(new Map(), metrics)[outcome] ?? 0}, one line`
  })
}

/** A module that stands in for the resolver, and does what a file says. */
const RESOLVER = `
import dns from 'node:dns'
import { readFileSync } from 'node:fs'
const real = dns.lookup
dns.lookup = (name, options, callback) => {
  if (!name.endsWith('.test')) return real(name, options, callback)
  const done = typeof options === 'function' ? options : callback
  const mode = readFileSync(process.env.RESOLVER_SAYS, 'utf8').trim()
  const wrong = (code) => setTimeout(() => done(Object.assign(new Error('getaddrinfo ' + code + ' ' + name), { code, syscall: 'getaddrinfo', hostname: name })), 5)
  if (mode === 'hang') return
  if (mode !== 'good') return wrong(mode)
  setTimeout(() => (options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4)), 1)
}
`

async function resolving(
  bench: Bench,
  modes: readonly (readonly [mode: string, outcome: PollOutcome])[],
): Promise<string> {
  const folder = bench.newFolder()
  const says = fileIn(folder, 'says', 'good')
  const module = fileIn(folder, 'resolver.mjs', RESOLVER)
  const options = {
    urlOf: ({ port }: { readonly port: number }) => `http://prometheus.test:${port}`,
    environment: { NODE_OPTIONS: `--import=${module}`, RESOLVER_SAYS: says },
  }
  return withLane(bench, options, async (lane) => {
    const seen: string[] = []
    for (const [mode, outcome] of modes) {
      const fault = {
        begin: ({ proxy }: Lane) => {
          writeFileSync(says, mode)
          proxy.cutAll() // who is connected needs no name
        },
        end: () => writeFileSync(says, 'good'),
      }
      seen.push(
        `${mode}: ${await meet(lane, { fault, monitor: { outcome }, incident: { outcome }, tolerated: ['conn'] })}`,
      )
    }
    return seen.join('; ')
  })
}

/** Valid from tomorrow on. */
function notYetValid(folder: string, authority: Authority): Certificate {
  const certificate = authority.issue('not-yet')
  const day = (offset: number): string =>
    new Date(Date.now() + offset * 86_400_000).toISOString().replace(/[-:T]/g, '').slice(2, 14) + 'Z'
  const config = fileIn(
    folder,
    'ca.cnf',
    `[ca]\ndefault_ca=d\n[d]\ndatabase=${fileIn(folder, 'index.txt', '')}\nserial=${fileIn(folder, 'serial', '77')}\nnew_certs_dir=${folder}\ndefault_md=sha256\npolicy=p\nx509_extensions=e\n[p]\ncommonName=supplied\n[e]\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n`,
  )
  const request = join(folder, 'not-yet.csr')
  const openssl = process.env['OPENSSL'] ?? 'openssl'
  execFileSync(openssl, ['req', '-new', '-key', certificate.keyFile, '-subj', '/CN=not-yet', '-out', request], {
    stdio: 'pipe',
  })
  const cert = execFileSync(
    openssl,
    [
      'ca',
      '-batch',
      '-config',
      config,
      '-cert',
      authority.certFile,
      '-keyfile',
      authority.keyFile,
      '-in',
      request,
      '-startdate',
      day(1),
      '-enddate',
      day(3),
      '-notext',
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' },
  )
  return { ...certificate, cert: cert.slice(cert.indexOf('-----BEGIN')) }
}

async function certificates(bench: Bench): Promise<string> {
  const folder = bench.newFolder()
  const [authority, other] = [createAuthority(folder, 'authority'), createAuthority(folder, 'other')]
  const good = authority.issue('good')
  const trusted = fileIn(folder, 'trusted.pem', authority.cert)
  const password = fileIn(folder, 'password', 'planted-password-4711')
  const access = fileIn(
    folder,
    'tls.yml',
    `tls_config: {ca_file: ${trusted}}\nbasic_auth: {username: meshfever, password_file: ${password}}\n`,
  )
  const wrong: readonly (readonly [string, Certificate, RegExp])[] = [
    ['expired', authority.issue('expired', { days: -1 }), /CERT_HAS_EXPIRED/],
    ['not yet valid', notYetValid(folder, authority), /CERT_NOT_YET_VALID/],
    ['of an unknown authority', other.issue('stranger'), /UNABLE_TO|ca_file names authorities/],
    ['for another name', authority.issue('elsewhere', { names: 'DNS:elsewhere.test' }), /ALTNAME/],
    ['vouching for itself', selfSignedCertificate(folder, 'itself'), /SELF_SIGNED|ca_file names authorities/],
  ]
  return withLane(bench, { identity: good, access: ['--prometheus-http-config-file', access] }, async (lane) => {
    const seen: string[] = []
    const tls = (detail: RegExp) => ({ outcome: 'tls', detail }) as const
    for (const [what, certificate, detail] of wrong) {
      const fault = {
        begin: ({ proxy }: Lane) => proxy.present(certificate),
        end: ({ proxy }: Lane) => proxy.present(good),
      }
      seen.push(
        `${what}: ${await meet(lane, { fault, monitor: tls(detail), incident: tls(detail), tolerated: ['conn', 'timeout'] })}`,
      )
    }
    return seen.join('; ')
  })
}

export const WAY_ROWS: readonly Row[] = [
  {
    id: 'T2',
    fault: 'a name that there is not, and one that cannot be looked up now',
    gate: true,
    run: (bench) =>
      resolving(bench, [
        ['ENOTFOUND', 'dns'],
        ['EAI_AGAIN', 'dns'],
      ]),
  },
  {
    id: 'T3',
    fault: 'a resolver that never answers',
    gate: true,
    run: (bench) => resolving(bench, [['hang', 'timeout']]),
  },
  {
    id: 'T16',
    fault: 'slashes at the end of --prometheus-url',
    run: async (bench) => {
      const proxy = await startFaultProxy(bench.prometheus.url)
      try {
        const seen = await works(bench, { url: `${proxy.url}//` })
        assert.ok(proxy.asked.every(({ text }) => text.startsWith('GET /api/v1/query?')))
        return seen
      } finally {
        await proxy.close()
      }
    },
  },
  { id: 'T17', fault: 'certificates that are wrong in each way', gate: true, run: certificates },
  {
    id: 'T18',
    fault: 'https to a plain port',
    run: (bench) =>
      failsAs(
        bench,
        { url: bench.prometheus.url.replace('http:', 'https:') },
        'tls',
        /does the server speak TLS there/,
      ),
  },
  {
    id: 'T19',
    fault: 'HTTP_PROXY, HTTPS_PROXY and ALL_PROXY in the environment',
    run: async (bench) => {
      let hits = 0
      const server = createServer((_request, response) => {
        hits++
        response.end('{}')
      })
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      const proxy = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
      const environment = Object.fromEntries(
        ['HTTP_PROXY', 'http_proxy', 'HTTPS_PROXY', 'ALL_PROXY', 'all_proxy'].map((name) => [name, proxy]),
      )
      try {
        const seen = await works(bench, { url: bench.prometheus.url, environment })
        assert.equal(hits, 0)
        return `${seen}, 0 requests to the proxy`
      } finally {
        server.close()
      }
    },
  },
  {
    id: 'T21',
    fault: 'http://localhost, listened on by 127.0.0.1 only',
    run: (bench) => works(bench, { url: bench.prometheus.url.replace('127.0.0.1', 'localhost') }),
  },
  {
    id: 'T21 ::1',
    fault: '[::1], where nobody listens',
    run: async (bench) => failsAs(bench, { url: (await closedUrl()).replace('127.0.0.1', '[::1]') }, 'conn', /./),
  },
  {
    id: 'T22',
    fault: '64 file descriptors',
    run: (bench) => works(bench, { url: bench.prometheus.url, through: ['sh', '-c', 'ulimit -n 64; exec "$@"', 'sh'] }),
  },
  {
    id: 'P17',
    fault: 'a user ID that nobody has, no HOME',
    run: (bench) =>
      works(bench, { url: bench.prometheus.url, through: ['setpriv', '--reuid=54321', '--regid=0', '--clear-groups'] }),
  },
  {
    id: 'P16',
    fault: 'a file system that is read-only',
    run: (bench) =>
      works(bench, {
        url: bench.prometheus.url,
        through: [
          'unshare',
          '-m',
          'sh',
          '-c',
          'mount -o remount,bind,ro / && mount -t tmpfs -o ro,size=4k none /mnt && exec "$@"',
          'sh',
        ],
      }),
  },
  {
    id: 'S23',
    fault: 'a clock of ours that is wrong by an hour, and steps',
    run: async (bench) => clockSteps(bench),
  },
]

const STEPPED_CLOCK = `
import { readFileSync } from 'node:fs'
const real = Date.now
Date.now = () => real() + Number(readFileSync(process.env.CLOCK_STEP, 'utf8'))
`

/** P10, too: what is measured and decided goes by Prometheus's time and a monotonic clock. */
async function clockSteps(bench: Bench): Promise<string> {
  const folder = bench.newFolder()
  const step = fileIn(folder, 'step', '3600000')
  const environment = { NODE_OPTIONS: `--import=${fileIn(folder, 'clock.mjs', STEPPED_CLOCK)}`, CLOCK_STEP: step }
  return withLane(bench, { environment }, async ({ monitor, incident, proxy }) => {
    const daemons = [monitor, incident]
    const before = await Promise.all(daemons.map((one) => one.metrics()))
    for (const ms of [-3_600_000, 0, 86_400_000]) {
      writeFileSync(step, String(ms))
      const then = await Promise.all(daemons.map((one) => one.metrics()))
      for (const [i, daemon] of daemons.entries()) {
        await until('3 polls after a step of the clock', async () =>
          (risen(then[i]!, await daemon.metrics())['ok'] ?? 0) >= 3 ? true : undefined,
        )
      }
    }
    const after = await Promise.all(daemons.map((one) => one.metrics()))
    after.forEach((metrics, i) => assert.deepEqual(Object.keys(risen(before[i]!, metrics)), ['ok']))
    assert.deepEqual(facts(after[1]!), facts(before[1]!))
    for (const daemon of daemons)
      assert.deepEqual(
        alarming(daemon.events()).filter(({ msg }) => String(msg).startsWith('polls')),
        [],
      )
    assert.ok(
      proxy.asked.every(({ text }) => !/[?&]time=/.test(text)),
      'a time was sent to Prometheus',
    )
    return `3 steps, polls every ${POLL_SECONDS} s as before, no time sent, accumulators as before`
  })
}
