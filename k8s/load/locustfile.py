"""Users of Online Boutique or Sock Shop for Locust, as many as profile.json says at each second.

profile.json is read from this file's folder:

    steps        users of each step of the cycle, [from, to]; between the two they change evenly. The cycle repeats.
    stepSeconds  how long each step lasts
    transients   extra users from one second of the run to another, both included
    spawnRate    users that may come or go in a second
    waitSeconds  [min, max] between two tasks of a user; null for 1 to 10 s

Environment: APPLICATION is online-boutique (unless set) or sock-shop; LOCUST_HOST is the shop's address.
"""

import base64
import datetime
import json
import math
import os
import random

from locust import FastHttpUser, LoadTestShape, between

APPLICATION = os.environ.get("APPLICATION", "online-boutique")

if APPLICATION not in ("online-boutique", "sock-shop"):
    raise SystemExit("APPLICATION must be online-boutique or sock-shop, got " + APPLICATION)

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "profile.json"), encoding="utf-8") as file:
    PROFILE = json.load(file)

WAIT = PROFILE.get("waitSeconds") or [1, 10]


def rounded(value):
    """A half goes up; Python's own round() goes to the even neighbour."""
    return math.floor(value + 0.5)


def users_at(seconds):
    """How many users there should be in this second of the run."""
    begun = math.floor(seconds / PROFILE["stepSeconds"])
    first, last = PROFILE["steps"][begun % len(PROFILE["steps"])]
    extra = sum(
        transient["users"]
        for transient in PROFILE.get("transients", [])
        if transient["from"] <= seconds <= transient["to"]
    )
    return rounded(first + (last - first) * (seconds / PROFILE["stepSeconds"] - begun)) + rounded(extra)


class ProfileShape(LoadTestShape):
    """Never ends by itself."""

    def tick(self):
        return users_at(self.get_run_time()), PROFILE["spawnRate"]


# Online Boutique: the pages, forms and weights of its own load generator.

PRODUCTS = [
    "0PUK6V6EV0",
    "1YMWWN1N4O",
    "2ZYFJ3GM2N",
    "66VCHSJNUP",
    "6E92ZMYYFZ",
    "9SIQT8TOJO",
    "L9ECAV7KIM",
    "LS4PSXUNUM",
    "OLJCESPC7Z",
]
CURRENCIES = ["EUR", "USD", "JPY", "CAD", "GBP", "TRY"]


def index(user):
    user.client.get("/")


def set_currency(user):
    user.client.post("/setCurrency", data={"currency_code": random.choice(CURRENCIES)})


def browse_product(user):
    user.client.get("/product/" + random.choice(PRODUCTS), name="/product/[id]")


def view_cart(user):
    user.client.get("/cart")


def add_to_cart(user):
    product = random.choice(PRODUCTS)
    user.client.get("/product/" + product, name="/product/[id]")
    user.client.post("/cart", data={"product_id": product, "quantity": random.randint(1, 10)})


def checkout(user):
    add_to_cart(user)
    user.client.post(
        "/cart/checkout",
        data={
            "email": "someone@example.com",
            "street_address": "1600 Amphitheatre Parkway",
            "zip_code": "94043",
            "city": "Mountain View",
            "state": "CA",
            "country": "United States",
            "credit_card_number": "4432-8015-6152-0454",
            "credit_card_expiration_month": random.randint(1, 12),
            "credit_card_expiration_year": datetime.date.today().year + random.randint(1, 10),
            "credit_card_cvv": random.randint(100, 999),
        },
    )


class OnlineBoutiqueUser(FastHttpUser):
    abstract = APPLICATION != "online-boutique"
    wait_time = between(*WAIT)
    tasks = {index: 1, set_currency: 2, browse_product: 10, add_to_cart: 2, view_cart: 3, checkout: 1}

    def on_start(self):
        index(self)


# Sock Shop: the same walk through this shop. A page brings no data by itself, its script asks for it: so does each task.

LOGIN = "Basic " + base64.b64encode(b"user:password").decode()


def home(user):
    user.client.get("/")
    user.client.get("/catalogue?size=5", name="/catalogue")
    user.client.get("/cart")


def login(user):
    user.client.get("/login", headers={"Authorization": LOGIN})
    home(user)


def browse(user):
    user.client.get("/category.html")
    user.client.get("/tags")
    user.client.get("/catalogue/size")
    items = catalogue(user)
    user.client.get("/cart")
    detail(user, items)


def catalogue(user):
    """What can be bought; nothing when the shop does not answer."""
    response = user.client.get("/catalogue?page=1&size=6", name="/catalogue")
    try:
        return [item["id"] for item in response.json()]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


def detail(user, items):
    """Looks at one of the items; returns it, or None when there is none."""
    if not items:
        return None
    item = random.choice(items)
    user.client.get("/detail.html?id=" + item, name="/detail.html")
    user.client.get("/catalogue/" + item, name="/catalogue/[id]")
    user.client.get("/cart")
    return item


def put_into_cart(user):
    item = detail(user, catalogue(user))
    if item is not None:
        user.client.post("/cart", json={"id": item, "quantity": 1})


def basket(user):
    user.client.get("/basket.html")
    user.client.get("/cart")
    user.client.get("/card")
    user.client.get("/address")


def order(user):
    """Logged in, and with a cart of one item: payment declines more than 100 dollars."""
    user.client.get("/login", headers={"Authorization": LOGIN})
    user.client.delete("/cart")
    put_into_cart(user)
    basket(user)
    user.client.post("/orders", json={})


class SockShopUser(FastHttpUser):
    abstract = APPLICATION != "sock-shop"
    wait_time = between(*WAIT)
    tasks = {home: 1, login: 2, browse: 10, put_into_cart: 2, basket: 3, order: 1}

    def on_start(self):
        home(self)
