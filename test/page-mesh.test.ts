import assert from 'node:assert/strict'
import test from 'node:test'

import type { Page } from 'playwright-core'

import { says } from '../bench/page-stage.js'
import type { Pair } from '../src/core/pair.js'
import { MAX_LISTED } from '../src/page/edge-list.js'
import { browserFor, chartColours, chartPixels, openPage, overflow } from './helpers/browser.js'
import { serveMeshIncidents, serveMeshMonitor } from './helpers/mesh-pages.js'

const MARKUP = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
const PHONE = { viewport: { width: 360, height: 740 } }

const edge = (source: string, destination: string): Pair => ({ source, destination })
const focusedText = (page: Page): Promise<string> => page.evaluate<string>('document.activeElement.textContent')

test(
  'mesh page: of 2,000 edges the hottest come first, a search finds any of them, and a click shows its chart',
  { timeout: 60_000 },
  async (t) => {
    const browser = await browserFor(t)
    if (browser === null) return
    const edges = Array.from({ length: 1_999 }, (_, i) => {
      const latencyMs = i === 1_200 ? 90 : i === 700 ? 60 : 8 + (i % 7)
      return [edge(`service-${i}`, `backend-${i % 40}`), latencyMs] as const
    })
    const daemon = await serveMeshMonitor(t, [...edges, [edge(MARKUP, 'deep "end"'), 1]])
    const { page, complaints } = await openPage(browser, `${daemon.url}/`)
    await says(page, '2 ANOMALOUS')
    assert.match(
      await page.locator('.status').innerText(),
      /2 of 2,000 edges.*service-1200 → backend-0, 90 ms where 10/,
    )
    assert.match(await page.locator('.tiles').innerText(), /Anomalous\s*2\s*OK\s*1,998/)
    const rows = page.locator('.edges tbody tr')
    assert.equal(await rows.count(), MAX_LISTED)
    assert.match(await page.locator('.panel-edges').innerText(), /The 200 hottest of 2,000 edges/)
    assert.match(await rows.nth(0).innerText(), /service-1200 → backend-0\s+ANOMALOUS\s+8\s+90 ms\s+10 ms/)
    assert.match(await rows.nth(1).innerText(), /service-700 → backend-20\s+ANOMALOUS/)
    assert.match(await rows.nth(2).innerText(), /\sOK\s/)

    // By keys alone: the coldest edge of all, whose name is markup.
    await page.locator('#search').focus()
    await page.keyboard.type('IMG end')
    await page.getByText('1 edge.', { exact: true }).waitFor()
    assert.equal(await rows.count(), 1)
    await page.keyboard.press('Tab')
    assert.equal(await focusedText(page), `${MARKUP} → deep "end"`)
    await page.keyboard.press('Enter')
    const chosen = page.locator('.panel-edge')
    await chosen.locator('.plot canvas').waitFor()
    assert.equal(await focusedText(page), `${MARKUP} → deep "end"`)
    assert.equal(await page.evaluate('document.activeElement.id'), 'edge-title')
    assert.match(
      await chosen.innerText(),
      /OK: 1 ms where 10 ms is expected[^]*ANOMALOUS\s+15\d ms, expected 10 ms, band 5 – 20/,
    )
    assert.ok((await chartColours(page)) > 5)
    assert.ok((await chartPixels(page, 'anomaly')) > 30)
    assert.ok((await chartPixels(page, 'measured')) > 100)
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    assert.equal(await chosen.isVisible(), false)
    assert.equal(await focusedText(page), `${MARKUP} → deep "end"`, 'the focus is where it was')

    await page.locator('#search').fill('no such edge')
    await page.getByText('No edge has such a name.').waitFor()
    await page.locator('#search').fill('')
    await page.getByText('The 200 hottest').waitFor()
    assert.equal(await rows.count(), MAX_LISTED)

    // What has the focus keeps it when new polls come.
    await rows.nth(5).locator('button').focus()
    const before = await focusedText(page)
    await page.waitForResponse((response) => response.url().endsWith('/api/state') && response.status() === 200)
    assert.equal(await focusedText(page), before)
    assert.equal(await page.locator('main img, main script').count(), 0)
    const phone = await openPage(browser, `${daemon.url}/`, { ...PHONE, colorScheme: 'dark' })
    await says(phone.page, '2 ANOMALOUS')
    await phone.page.locator('.edges .pick').first().click()
    await phone.page.locator('.panel-edge .plot canvas').waitFor()
    assert.ok((await overflow(phone.page)) <= 0, 'scrolls sideways')
    assert.deepEqual([...complaints, ...phone.complaints], [])

    await rows.nth(0).click()
    await chosen.locator('.plot canvas').waitFor()
    await daemon.stop()
    await says(page, 'NO CONNECTION')
    assert.match(await page.locator('.banner').innerText(), /^No connection to the daemon since/)
    assert.match(await page.locator('.status').innerText(), /Last known: 2 ANOMALOUS, \d+ s ago/)
    for (const part of ['.tiles', '.panel-edges', '.panel-edge']) {
      assert.equal(await page.locator(`${part}.stale`).count(), 1, part)
    }
  },
)

test(
  'mesh page: an edge of which Prometheus holds nothing is said to have nothing, and a refusal is told',
  { timeout: 60_000 },
  async (t) => {
    const browser = await browserFor(t)
    if (browser === null) return
    const empty = JSON.stringify({ status: 'success', data: { resultType: 'matrix', result: [] } })
    let course: string | { readonly status: number; readonly body: string } = empty
    const daemon = await serveMeshMonitor(t, [[edge('a', 'b'), 50]], { course: () => course })
    const { page } = await openPage(browser, `${daemon.url}/`)
    await page.locator('.edges .pick').click()
    const chosen = page.locator('.panel-edge')
    await chosen.getByText('Prometheus holds no p50 of this edge').waitFor()
    assert.equal(await chosen.locator('.plot').isVisible(), false)
    assert.match(await chosen.innerText(), /ANOMALOUS: 50 ms where 10 ms is expected, score 4/)
    course = { status: 503, body: 'busy' }
    await chosen.getByText('What is shown is not of now: http_5xx: HTTP 503').waitFor()
  },
)

test(
  'mesh page: the map shows the component of the worst incident with its suspect, and names stay text',
  { timeout: 60_000 },
  async (t) => {
    const browser = await browserFor(t)
    if (browser === null) return
    const daemon = await serveMeshIncidents(
      t,
      [
        [edge('web', 'cart'), 16],
        [edge('api', 'cart'), 15],
        [edge('cart', MARKUP), 20],
        [edge(MARKUP, 'cart'), 8],
        [edge('lone', 'one'), 12],
        [edge('warm', 'only'), 3],
      ],
      { suspect: { kind: 'service', name: MARKUP, because: `${MARKUP} is slow` } },
    )
    const { page, complaints } = await openPage(browser, `${daemon.url}/`)
    await says(page, 'SEV 1')
    assert.ok((await page.locator('.status').innerText()).includes(`Suspect: ${MARKUP}; 4 edges hot. The worst of 2`))
    const map = page.locator('.map svg')
    assert.deepEqual(await map.locator('.map-box title').allTextContents(), [
      'cart',
      `${MARKUP}, the suspect`,
      'web',
      'api',
    ])
    assert.deepEqual(await map.locator('.map-box.suspected title').allTextContents(), [`${MARKUP}, the suspect`])
    assert.equal(await map.locator('.map-edge.hot').count(), 4)
    assert.match(await page.locator('.map-caption').innerText(), /^4 edges between 4 services/)
    await page.getByText('The map in words').focus()
    await page.keyboard.press('Enter')
    const words = page.locator('.map-list li')
    assert.deepEqual((await words.allInnerTexts()).slice(0, 2), [
      `cart → ${MARKUP} 20, hot, to the suspect`,
      'web → cart 16, hot',
    ])
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    const chosen = page.locator('.panel-edge')
    await chosen.locator('.plot canvas').waitFor()
    assert.equal(await chosen.locator('h2').innerText(), `cart → ${MARKUP}`)
    assert.match(
      await chosen.innerText(),
      /Accumulator 20, hot; the last poll said anomalous\. It belongs to incident 2/,
    )
    assert.ok((await chartPixels(page, 'temperature')) > 100)
    await chosen.getByText('Last values as a table').click()
    await chosen.locator('tbody tr').nth(19).waitFor()

    // By the mouse, on the line itself.
    await map.locator('.map-edge', { hasText: 'web → cart' }).locator('.map-touch').click()
    await chosen.getByText('Accumulator 16, hot').waitFor()
    assert.equal(await chosen.locator('h2').innerText(), 'web → cart')

    const other = page.locator('.open-incident', { hasText: 'lone → one' })
    await other.click()
    assert.deepEqual(await map.locator('.map-box title').allTextContents(), ['lone', 'one'])
    assert.equal(await other.getAttribute('aria-pressed'), 'true')

    await page.locator('#search').fill('warm')
    await page.getByText('1 edge.', { exact: true }).waitFor()
    assert.match(await page.locator('.edges tbody').innerText(), /warm → only\s+3\s+anomalous/)
    assert.equal(await page.locator('main img, main script').count(), 0)
    assert.ok((await overflow(page)) <= 0, 'scrolls sideways')
    assert.deepEqual(complaints, [])
    await daemon.stop()
    await says(page, 'NO CONNECTION')
    assert.equal(await page.locator('.panel-open.stale').count(), 1)
  },
)

test(
  'mesh page: of a component too large for a map the hottest edges are shown, and that they are',
  { timeout: 60_000 },
  async (t) => {
    const browser = await browserFor(t)
    if (browser === null) return
    const edges = Array.from({ length: 2_500 }, (_, i) => [edge(`caller-${i}`, 'cart'), 10 + (i % 9)] as const)
    const daemon = await serveMeshIncidents(t, edges, { suspect: { kind: 'service', name: 'elsewhere', because: 'x' } })
    for (const options of [{}, { ...PHONE, colorScheme: 'dark' as const }]) {
      const { page, complaints } = await openPage(browser, `${daemon.url}/`, options)
      await says(page, 'SEV 1')
      assert.equal(
        await page.locator('.map-caption').innerText(),
        'The 30 hottest of 2,500 edges between 31 services; thicker is hotter. The suspect, elsewhere, is on none of them.',
      )
      assert.equal(await page.locator('.map-box').count(), 31)
      assert.equal(await page.locator('.edges tbody tr').count(), MAX_LISTED)
      assert.ok((await overflow(page)) <= 0, 'scrolls sideways')
      assert.deepEqual(complaints, [])
    }
  },
)
