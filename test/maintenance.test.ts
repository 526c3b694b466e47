import assert from 'node:assert/strict'
import test from 'node:test'

import { maintenanceFlag } from '../src/commands/maintenance-flag.js'
import { UsageError } from '../src/core/errors.js'
import { maintenanceAt } from '../src/core/maintenance.js'

const NAME = '--maintenance'

/** Saturdays, 02:00 to 04:00 UTC. 2026-11-21 is a Saturday. */
const WEEKLY = '0 2 * * 6 for 2h until 2027-01-01T00:00:00Z=weekly batch'
const UPGRADE = '2026-11-21T22:00:00Z/2026-11-22T02:00:00Z=database upgrade'
const NEW_YEAR = '0 23 31 12 * for 3h until 2027-01-01T00:30:00Z=new year'
/** Longer than its interval: windows that overlap. */
const HALF_HOURLY = '0,30 * * * * for 40m until 2026-11-22T00:00:00Z=overlap'

for (const { window, at, reason } of [
  { window: UPGRADE, at: '2026-11-21T21:59:59.999Z', reason: null },
  { window: UPGRADE, at: '2026-11-21T22:00:00Z', reason: 'database upgrade' },
  { window: UPGRADE, at: '2026-11-22T01:59:59.999Z', reason: 'database upgrade' },
  { window: UPGRADE, at: '2026-11-22T02:00:00Z', reason: null },
  { window: WEEKLY, at: '2026-11-21T01:59:59.999Z', reason: null },
  { window: WEEKLY, at: '2026-11-21T02:00:00Z', reason: 'weekly batch' },
  { window: WEEKLY, at: '2026-11-21T02:00:00.5Z', reason: 'weekly batch' },
  { window: WEEKLY, at: '2026-11-21T03:59:59.999Z', reason: 'weekly batch' },
  { window: WEEKLY, at: '2026-11-21T04:00:00Z', reason: null },
  { window: WEEKLY, at: '2026-11-20T03:00:00Z', reason: null },
  { window: WEEKLY, at: '2026-12-26T03:00:00Z', reason: 'weekly batch' },
  { window: WEEKLY, at: '2027-01-02T03:00:00Z', reason: null },
  { window: NEW_YEAR, at: '2027-01-01T00:29:59Z', reason: 'new year' },
  { window: NEW_YEAR, at: '2027-01-01T00:30:00Z', reason: null },
  { window: HALF_HOURLY, at: '2026-11-21T23:35:00Z', reason: 'overlap' },
  { window: HALF_HOURLY, at: '2026-11-21T23:25:00Z', reason: 'overlap' },
  { window: '2026-11-21T23:00:00+01:00/2026-11-22T03:00+01:00=a=b', at: '2026-11-21T22:00:00Z', reason: 'a=b' },
]) {
  test(`maintenance: with ${window}, ${at} is ${reason === null ? 'a time like any other' : 'in the window'}`, () => {
    assert.equal(maintenanceAt([maintenanceFlag(window, NAME)], Date.parse(at) / 1000), reason)
  })
}

test('maintenance: of windows that overlap the first one given says why; without any nothing is expected', () => {
  const at = Date.parse('2026-11-21T23:00:00Z') / 1000
  const windows = [HALF_HOURLY, UPGRADE].map((text) => maintenanceFlag(text, NAME))
  assert.equal(maintenanceAt(windows, at), 'overlap')
  assert.equal(maintenanceAt(windows.toReversed(), at), 'database upgrade')
  assert.equal(maintenanceAt([], at), null)
})

for (const { text, says } of [
  { text: '', says: 'the reason is missing' },
  { text: '2026-11-21T22:00:00Z/2026-11-22T02:00:00Z', says: 'the reason is missing' },
  { text: '2026-11-21T22:00:00Z/2026-11-22T02:00:00Z= ', says: 'the reason is missing' },
  { text: `2026-11-21T22:00:00Z/2026-11-22T02:00:00Z=${'x'.repeat(201)}`, says: 'the reason is longer than 200' },
  { text: '2026-11-21T22:00:00Z=no end', says: 'an end is missing' },
  { text: '2026-11-21T22:00:00Z/=no end', says: 'the end must be a time with its zone' },
  { text: '2026-11-21T22:00:00/2026-11-22T02:00:00=no zone', says: 'the start must be a time with its zone' },
  { text: '2026-11-21/2026-11-22=days', says: 'the start must be a time with its zone' },
  { text: '2026-02-30T00:00:00Z/2026-03-22T02:00:00Z=no such day', says: 'the start must be a time' },
  { text: '2026-11-21T22:00:00Z/2026-11-22T25:00:00Z=no such hour', says: 'the end must be a time' },
  { text: '2026-11-21T22:00:00Z/2026-11-21T22:00:00Z=empty', says: 'the end must be after the start' },
  { text: '2026-11-21T22:00:00Z/2026-11-21T20:00:00Z=backwards', says: 'the end must be after the start' },
  { text: '0 2 * * 6=no duration, no end', says: 'an end is missing' },
  { text: '0 2 * * 6 for 2h=no end', says: 'the end after "until" is missing' },
  { text: '0 2 * * 6 for 2h until tomorrow=no time', says: 'the end after "until" must be a time' },
  { text: '0 2 * * 6 for ever until 2027-01-01T00:00:00Z=x', says: 'the duration after "for" must be a Prometheus' },
  { text: '0 2 * * 6 for 0s until 2027-01-01T00:00:00Z=x', says: 'the duration after "for" must be a Prometheus' },
  {
    text: '61 2 * * 6 for 2h until 2027-01-01T00:00:00Z=x',
    says: 'the cron expression is wrong: Invalid value for minute',
  },
  { text: '0 0 2 * * 6 for 2h until 2027-01-01T00:00:00Z=x', says: "the cron expression is wrong: mode '5-part'" },
  { text: 'weekly for 2h until 2027-01-01T00:00:00Z=x', says: 'the cron expression is wrong: ' },
  { text: '0 2 30 2 * for 2h until 2027-01-01T00:00:00Z=x', says: 'names a day that never comes' },
]) {
  test(`maintenance: ${JSON.stringify(text.slice(0, 70))} is refused: ${says}`, () => {
    assert.throws(
      () => maintenanceFlag(text, NAME),
      (error) => {
        assert.ok(error instanceof UsageError)
        assert.ok(error.message.startsWith(`${NAME} `), error.message)
        assert.ok(error.message.includes(says), error.message)
        assert.ok(error.message.includes(JSON.stringify(text)), error.message)
        assert.doesNotMatch(error.message, /\n/)
        return true
      },
    )
  })
}
