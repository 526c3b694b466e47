// Users of Online Boutique or Sock Shop for k6, as many as profile.json says at each second; its keys are explained in
// locustfile.py. Environment: APPLICATION is online-boutique (unless set) or sock-shop, TARGET_URL the shop's address,
// DURATION_SECONDS when to end: k6 wants to know beforehand.
import http from 'k6/http'
import encoding from 'k6/encoding'
import { sleep } from 'k6'

const APPLICATION = __ENV.APPLICATION || 'online-boutique'
const TARGET_URL = __ENV.TARGET_URL || 'http://frontend'
const DURATION_SECONDS = Number(__ENV.DURATION_SECONDS || 6 * 3600)

if (APPLICATION !== 'online-boutique' && APPLICATION !== 'sock-shop')
  throw new Error(`APPLICATION must be online-boutique or sock-shop, got ${APPLICATION}`)
if (!(DURATION_SECONDS > 0)) throw new Error(`DURATION_SECONDS must be a positive number, got ${DURATION_SECONDS}`)

const { steps, stepSeconds, transients = [], spawnRate, waitSeconds } = JSON.parse(open('./profile.json'))
const [minWait, maxWait] = waitSeconds || [1, 10]

/** Users of the cycle in a second of the run, without transients. */
function cycleUsersAt(seconds) {
  const begun = Math.floor(seconds / stepSeconds)
  const [from, to] = steps[begun % steps.length]
  return from + (to - from) * (seconds / stepSeconds - begun)
}

/**
 * Stages that follow `usersAt` from second 0 to `seconds` with at most spawnRate users more or less in a second. k6 goes evenly from one
 * stage's target to the next; seconds of one slope are one stage.
 */
function stagesOf(usersAt, seconds) {
  const stages = []
  let level = 0
  let slope = null
  for (let second = 0; second < seconds; second++) {
    const wanted = usersAt(second)
    const next = Math.min(Math.max(wanted, level - spawnRate), level + spawnRate)
    const change = next - level
    if (slope !== null && Math.abs(change - slope) < 1e-9) stages[stages.length - 1].duration++
    else stages.push({ duration: 1, target: 0 })
    stages[stages.length - 1].target = Math.round(next)
    slope = change
    level = next
  }
  return stages.map(({ duration, target }) => ({ duration: `${duration}s`, target }))
}

/** Users that are gone are gone at once, in the middle of a task, too. */
const scenario = (stages, more) => ({
  executor: 'ramping-vus',
  exec: APPLICATION === 'sock-shop' ? 'sockShop' : 'onlineBoutique',
  startVUs: 0,
  stages,
  gracefulRampDown: '0s',
  gracefulStop: '0s',
  ...more,
})

function scenarios() {
  const found = { cycle: scenario(stagesOf(cycleUsersAt, DURATION_SECONDS), {}) }
  transients.forEach(({ from, to, users }, i) => {
    if (from >= DURATION_SECONDS) return
    // Both ends are included; as they came, they leave.
    const lasting = Math.floor(to) - Math.ceil(from) + 1
    const leaving = Math.ceil(users / spawnRate)
    const stages = stagesOf((second) => (second < lasting ? users : 0), lasting + leaving)
    found[`transient_${i + 1}`] = scenario(stages, { startTime: `${Math.ceil(from)}s` })
  })
  return found
}

export const options = {
  scenarios: scenarios(),
  // A user keeps its session, and with it its cart.
  noCookiesReset: true,
  discardResponseBodies: false,
}

const pick = (values) => values[Math.floor(Math.random() * values.length)]
const wholeFrom = (min, max) => min + Math.floor(Math.random() * (max - min + 1))
const get = (path, name = path, params = {}) => http.get(TARGET_URL + path, { ...params, tags: { name } })
const post = (path, body, params = {}) => http.post(TARGET_URL + path, body, { ...params, tags: { name: path } })
const postJson = (path, body) => post(path, JSON.stringify(body), { headers: { 'Content-Type': 'application/json' } })

/** Whether this user has arrived; each user of k6 has its own copy of the module. */
let arrived = false

function live(onStart, tasks) {
  if (!arrived) {
    arrived = true
    onStart()
  }
  const total = tasks.reduce((sum, { weight }) => sum + weight, 0)
  let left = Math.random() * total
  const chosen = tasks.find(({ weight }) => (left -= weight) < 0) || tasks[tasks.length - 1]
  chosen.run()
  sleep(minWait + Math.random() * (maxWait - minWait))
}

// Online Boutique: the pages, forms and weights of its own load generator.

const PRODUCTS = [
  '0PUK6V6EV0',
  '1YMWWN1N4O',
  '2ZYFJ3GM2N',
  '66VCHSJNUP',
  '6E92ZMYYFZ',
  '9SIQT8TOJO',
  'L9ECAV7KIM',
  'LS4PSXUNUM',
  'OLJCESPC7Z',
]
const CURRENCIES = ['EUR', 'USD', 'JPY', 'CAD', 'GBP', 'TRY']

const index = () => get('/')

function addToCart() {
  const product = pick(PRODUCTS)
  get(`/product/${product}`, '/product/[id]')
  post('/cart', { product_id: product, quantity: String(wholeFrom(1, 10)) })
}

function checkout() {
  addToCart()
  post('/cart/checkout', {
    email: 'someone@example.com',
    street_address: '1600 Amphitheatre Parkway',
    zip_code: '94043',
    city: 'Mountain View',
    state: 'CA',
    country: 'United States',
    credit_card_number: '4432-8015-6152-0454',
    credit_card_expiration_month: String(wholeFrom(1, 12)),
    credit_card_expiration_year: String(new Date().getFullYear() + wholeFrom(1, 10)),
    credit_card_cvv: String(wholeFrom(100, 999)),
  })
}

export function onlineBoutique() {
  live(index, [
    { weight: 1, run: index },
    { weight: 2, run: () => post('/setCurrency', { currency_code: pick(CURRENCIES) }) },
    { weight: 10, run: () => get(`/product/${pick(PRODUCTS)}`, '/product/[id]') },
    { weight: 2, run: addToCart },
    { weight: 3, run: () => get('/cart') },
    { weight: 1, run: checkout },
  ])
}

// Sock Shop: the same walk through this shop. A page brings no data by itself, its script asks for it: so does each task.

const LOGIN = { headers: { Authorization: `Basic ${encoding.b64encode('user:password')}` } }

function home() {
  get('/')
  get('/catalogue?size=5', '/catalogue')
  get('/cart')
}

function login() {
  get('/login', '/login', LOGIN)
  home()
}

/** What can be bought; nothing when the shop does not answer. */
function catalogue() {
  const { status, body } = get('/catalogue?page=1&size=6', '/catalogue')
  return status === 200 ? JSON.parse(body).map(({ id }) => id) : []
}

/** Looks at one of the items; returns it, or null when there is none. */
function detail(items) {
  if (items.length === 0) return null
  const item = pick(items)
  get(`/detail.html?id=${item}`, '/detail.html')
  get(`/catalogue/${item}`, '/catalogue/[id]')
  get('/cart')
  return item
}

function browse() {
  get('/category.html')
  get('/tags')
  get('/catalogue/size')
  const items = catalogue()
  get('/cart')
  detail(items)
}

function putIntoCart() {
  const item = detail(catalogue())
  if (item !== null) postJson('/cart', { id: item, quantity: 1 })
}

function basket() {
  get('/basket.html')
  get('/cart')
  get('/card')
  get('/address')
}

/** Logged in, and with a cart of one item: payment declines more than 100 dollars. */
function order() {
  get('/login', '/login', LOGIN)
  http.del(`${TARGET_URL}/cart`, null, { tags: { name: '/cart' } })
  putIntoCart()
  basket()
  postJson('/orders', {})
}

export function sockShop() {
  live(home, [
    { weight: 1, run: home },
    { weight: 2, run: login },
    { weight: 10, run: browse },
    { weight: 2, run: putIntoCart },
    { weight: 3, run: basket },
    { weight: 1, run: order },
  ])
}
