import assert from 'node:assert/strict'
import { request } from 'node:http'
import test, { type TestContext } from 'node:test'

import { says, SCENES, type Stage, startStage } from '../bench/page-stage.js'
import { StartError } from '../src/core/errors.js'
import type { PageState } from '../src/page/page-state.js'
import { browserFor, chartColours, chartPixels, type Opened, openPage, overflow } from './helpers/browser.js'
import { type LocalServer, startHttpServer } from './helpers/local-server.js'
import { serveDaemon } from '../src/io/serve-daemon.js'
import { createIncidentPage } from '../src/page/incident-page.js'
import { fakeRuntime } from './helpers/fake-runtime.js'

test(
  'page: on a real mesh it shows normal traffic, Sev 2, Sev 1, the end, and an outage of Prometheus',
  { timeout: 360_000 },
  async (t) => {
    const browser = await browserFor(t)
    if (browser === null) return
    let stage: Stage
    try {
      stage = await startStage()
    } catch (error) {
      if (!(error instanceof StartError)) throw error
      t.skip(error.message)
      return
    }
    t.after(() => stage.stop())
    const phone = { viewport: { width: 360, height: 740 } }
    const wall = { viewport: { width: 1920, height: 1080 } }
    const [monitor, incident] = [`${stage.monitorUrl}/`, `${stage.incidentUrl}/`]
    const opened = {
      monitor: await openPage(browser, monitor),
      incident: await openPage(browser, incident),
      monitorPhone: await openPage(browser, monitor, { ...phone, colorScheme: 'dark' }),
      incidentPhone: await openPage(browser, incident, phone),
      monitorWall: await openPage(browser, monitor, wall),
      incidentWall: await openPage(browser, incident, { ...wall, colorScheme: 'dark' }),
    }
    const pages = Object.entries(opened)
    const text = (of: Opened, selector: string): Promise<string> => of.page.locator(selector).innerText()

    const seen: Readonly<Record<(typeof SCENES)[number]['name'], () => Promise<void>>> = {
      normal: async () => {
        assert.match(
          await text(opened.monitor, '.panel-training'),
          /frontend → cartservice[^]*load-and-season[^]*3\d over/,
        )
        assert.match(await text(opened.monitor, '.tiles'), /Latency p50\s*[\d.]+ ms[^]*Last sample\s*\d+ s ago/)
        assert.match(await text(opened.incident, '.panel-history'), /No incident is known/)
        assert.equal(await opened.incident.page.locator('.panel-open').isVisible(), false)
      },
      sev2: async () => {
        assert.match(
          await text(opened.monitor, '.status'),
          /above the band that ends at [\d.]+ ms, [\d.]+ times what is/,
        )
        assert.ok((await chartPixels(opened.monitor.page, 'anomaly')) > 30, 'anomalies are marked')
        assert.match(await text(opened.incident, '.status'), /1 pair hot: frontend → cartservice\.[^]*Open since/)
        const evidence = await text(opened.incident, '.panel-open')
        assert.match(evidence, /Suspect: the way from frontend to cartservice/)
        assert.match(evidence, /opened, Sev 2/)
        assert.match(await text(opened.incident, '.panel-pairs'), /frontend → cartservice\s*\d+ hot/)
      },
      sev1: async () => {
        assert.match(
          await text(opened.incident, '.status'),
          /2 pairs hot: frontend → cartservice, checkoutservice → paymentservice/,
        )
        assert.match(await text(opened.incident, '.panel-open'), /escalated, Sev 1/)
        assert.match(await text(opened.incidentPhone, '.tiles'), /Hot pairs\s*2 of 2/)
      },
      resolved: async () => {
        await opened.incident.page.locator('.panel-open').waitFor({ state: 'hidden' })
        assert.match(await text(opened.incident, '.status'), /Last: Sev 1, resolved at/)
        assert.match(await text(opened.incident, '.panel-history'), /Sev 1\s*[\d:]+\s*resolved after/)
        await keyboard(opened)
      },
      'prometheus-down': async () => {
        for (const of of [opened.monitor, opened.incident]) {
          assert.match(await text(of, '.banner'), /^No usable answer from Prometheus since [\d:]+ \(\d+ s\)\. conn: /)
          assert.match(await text(of, '.status'), /Last known: (OK|NO INCIDENT), \d+ s ago\./)
          assert.equal(await of.page.locator('.tiles.stale').count(), 1)
          assert.equal(await text(of, '#live'), 'Not live')
        }
        const age = async (): Promise<number> => Number(/(\d+) s ago/.exec(await text(opened.monitor, '.tiles'))?.[1])
        const before = await age()
        await opened.monitor.page.waitForTimeout(2_500)
        assert.ok((await age()) > before, 'the age of what is shown grows')
      },
    }
    for (const { name, act, ...words } of SCENES) {
      await act(stage)
      for (const [which, { page }] of pages)
        await says(page, which.startsWith('monitor') ? words.monitor : words.incident)
      // What comes with the next polls: the evidence, a few more points.
      await opened.incident.page.waitForTimeout(2_500)
      await seen[name]()
      for (const [which, { page, complaints }] of pages) {
        const what = `${name}: ${which}`
        assert.ok((await chartColours(page)) > 5, `${what}: the chart is not blank`)
        assert.ok((await overflow(page)) <= 0, `${what}: scrolls sideways`)
        assert.deepEqual(complaints, [], what)
      }
    }

    await stage.stopMonitor()
    await says(opened.monitor.page, 'NO CONNECTION')
    assert.match(await text(opened.monitor, '.banner'), /^No connection to the daemon since/)
  },
)

/** What a mouse can do, by keys alone. */
async function keyboard({ monitor, incident }: { readonly monitor: Opened; readonly incident: Opened }): Promise<void> {
  const { page } = monitor
  const readout = page.locator('.readout')
  const focused = (): Promise<string> =>
    page.evaluate<string>('document.activeElement.className || document.activeElement.id')
  await page.evaluate('document.activeElement.blur()')
  await page.keyboard.press('Tab')
  assert.equal(await focused(), 'skip')
  await page.keyboard.press('Tab')
  assert.equal(await focused(), 'theme')
  for (const theme of ['light', 'dark', 'auto']) {
    await page.keyboard.press('Enter')
    assert.equal(await page.locator('#theme').innerText(), `Theme: ${theme}`)
    const paper = await page.evaluate<string>('getComputedStyle(document.body).backgroundColor')
    assert.equal(paper, theme === 'dark' ? 'rgb(13, 18, 24)' : 'rgb(243, 245, 248)')
    assert.ok((await chartColours(page)) > 5)
  }
  await page.keyboard.press('Tab')
  assert.equal(await focused(), 'plot')
  await page.keyboard.press('Home')
  const first = await readout.innerText()
  await page.keyboard.press('ArrowRight')
  await page.waitForTimeout(100)
  assert.notEqual(await readout.innerText(), first)
  await page.keyboard.press('Tab')
  await page.keyboard.press('Enter')
  await page.locator('.values tbody tr').first().waitFor()
  assert.match(await page.locator('.values table').innerText(), /Time\s+Latency\s+Expected\s+Band\s+Verdict/)
  await page.keyboard.press('Enter')

  await incident.page.locator('.incident > summary').focus()
  await incident.page.keyboard.press('Enter')
  await incident.page.getByText('escalated, Sev 1').waitFor()
  // It stays open and focused when new polls come.
  await incident.page.waitForTimeout(2_500)
  assert.equal(await incident.page.evaluate<string>('document.activeElement.tagName'), 'SUMMARY')
  assert.ok(await incident.page.getByText('escalated, Sev 1').isVisible())
}

const MARKUP = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
const T = 1_700_000_000

/** An incident daemon whose every text is markup, on a clock that stands still. */
async function hostileDaemon(t: TestContext): Promise<string> {
  const runtime = fakeRuntime([])
  const pair = { source: MARKUP, destination: MARKUP }
  const page = createIncidentPage({
    pairs: [{ ...pair, accumulatorThreshold: 5 }],
    incidentThreshold: 10,
    clearThreshold: 5,
    coolBy: 2,
    accumulatorMax: 20,
    noDataTimeoutSeconds: 600,
  })
  for (let i = 0; i < 20; i++) {
    const open = i < 11 ? null : { startedSeconds: T, severity: 2 as const }
    const state = { accumulators: [i], heardSeconds: [T + i], open, expired: false }
    page.note(
      state,
      { timestampSeconds: T + i, verdicts: [{ kind: 'anomalous', anomalyCount: 1 }] },
      { nowSeconds: T + i, expected: MARKUP },
    )
  }
  const evidence = {
    id: MARKUP,
    transition: 'opened',
    severity: 2,
    previousSeverity: null,
    startedSeconds: T,
    timestampSeconds: T,
    temperature: 11,
    pairs: [
      {
        ...pair,
        ...{ accumulator: 11, accumulatorThreshold: 5, hot: true, quantile: 0.5, latencyMs: 200, yhatMs: 10 },
        ...{ yMinMs: 5, yMaxMs: 20, ratio: 20, requestsPerSecond: null, firstAnomalousSeconds: T, course: [] },
      },
    ],
    suspect: { kind: 'service', name: MARKUP, because: MARKUP },
    hints: [MARKUP],
    queries: [{ expression: MARKUP, startSeconds: T, endSeconds: T }],
  } as const
  const record = {
    id: MARKUP,
    severity: 2,
    startedSeconds: T,
    endedSeconds: null,
    outcome: 'open',
    transitionsLeftOut: 0,
  } as const
  const exit = serveDaemon(
    runtime,
    { command: 'incident', listenAddress: '127.0.0.1', port: 0, pollIntervalMs: 5_000 },
    () => ({
      poll: () => Promise.resolve({ outcome: 'warnings', detail: MARKUP }),
      view: page.view,
      history: () => ({ incidents: [{ ...record, transitions: [evidence] }] }),
    }),
  )
  t.after(async () => {
    runtime.stop()
    await exit
  })
  await runtime.clock.asleep()
  return String(runtime.logged.find(({ msg }) => msg === 'listening')?.['url'])
}

/** A reverse proxy that serves a daemon under /some/prefix/ and nothing else, as an ingress that strips its prefix does. */
function stripping(t: TestContext, target: string): Promise<LocalServer> {
  return startHttpServer(t, (incoming, outgoing) => {
    if (incoming.url?.startsWith('/some/prefix/') !== true) {
      outgoing.writeHead(404).end('not behind the prefix')
      return
    }
    const path = incoming.url.slice('/some/prefix'.length)
    request(target, { path, headers: incoming.headers }, (answer) => {
      // A daemon's clock that stands still would look as if it were stuck.
      outgoing.writeHead(answer.statusCode ?? 0, { ...answer.headers, date: new Date(T * 1000).toUTCString() })
      answer.pipe(outgoing)
    }).end()
  })
}

test(
  'page: behind a path prefix it works, and markup in names and evidence stays text',
  { timeout: 60_000 },
  async (t) => {
    const browser = await browserFor(t)
    if (browser === null) return
    const proxy = await stripping(t, await hostileDaemon(t))
    const { page, complaints } = await openPage(browser, `${proxy.url}/some/prefix/`)
    await says(page, 'SEV 2')
    await page.locator('.incident > summary').click()
    await page.locator('.panel-open .queries summary').click()
    for (const selector of [
      '.status',
      '.panel-open .suspect',
      '.panel-open .hints',
      '.panel-open code',
      '.panel-pairs',
      '.incidents',
    ]) {
      assert.ok((await page.locator(selector).innerText()).includes(MARKUP), selector)
    }
    assert.equal(await page.locator('main img, main script').count(), 0)
    assert.match(await page.title(), /^SEV 2 · /)
    assert.deepEqual(complaints, [])
  },
)

test(
  'page: what it is fed changes neither its words nor its colours to what is not so',
  { timeout: 60_000 },
  async (t) => {
    const browser = await browserFor(t)
    if (browser === null) return
    const target = await hostileDaemon(t)
    const good = (await (await fetch(`${target}/api/state`)).json()) as PageState
    let state: unknown = good
    const server = await startHttpServer(t, (incoming, outgoing) => {
      if (incoming.url === '/api/state') {
        outgoing
          .writeHead(200, { date: new Date(T * 1000).toUTCString() })
          .end(typeof state === 'string' ? state : JSON.stringify(state))
        return
      }
      request(target, { path: incoming.url }, (answer) => {
        outgoing.writeHead(answer.statusCode ?? 0, { ...answer.headers, date: new Date(T * 1000).toUTCString() })
        answer.pipe(outgoing)
      }).end()
    })
    const { page } = await openPage(browser, `${server.url}/`)
    await says(page, 'SEV 2')
    state = { ...good, poll: { ...good.poll, answered: false, outcome: 'timeout', detail: 'no answer' } }
    await says(page, 'NO DATA')
    assert.match(await page.locator('.status-since').innerText(), /^Last known: SEV 2, /)
    // A daemon that answers and does not poll any more.
    state = { ...good, poll: { ...good.poll, endedSeconds: T - 60 } }
    await page.locator('.banner').getByText('No poll since').waitFor()
    state = 'not JSON'
    await says(page, 'NO CONNECTION')
    state = good
    await says(page, 'SEV 2')
    assert.equal(await page.locator('.banner').isVisible(), false)
  },
)
