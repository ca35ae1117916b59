"""Words for the prompts: made up for this benchmark, in the style of what customers of a bank write."""

from __future__ import annotations

EXAMPLES = (
    ("card not delivered yet", "I ordered a card two weeks ago and the letter box is still empty."),
    ("card lost or stolen", "Somebody took my purse on the bus this morning."),
    ("cash machine kept card", "The machine swallowed my card and gave nothing back."),
    ("transfer not arrived", "My landlord says that the rent has not reached him."),
    ("unknown direct debit", "There is a debit of 30 euros that I never agreed to."),
    ("change of address", "We moved in May, please write to the new house."),
    ("fee for foreign payment", "Why was I charged extra for paying in Norway?"),
    ("forgotten login password", "I cannot get into my account, I forgot the password."),
    ("raise credit limit", "Could I spend more with my card each month?"),
    ("close the account", "I do not need this account any longer, please end it."),
)
MORE_EXAMPLES = (
    ("transfer not arrived", "On Friday I sent 300 euros to my brother and he still waits for it."),
    ("cash machine kept card", "Your machine at the station did not give my card back."),
)

GREETINGS = (
    "Hello,",
    "Hi there,",
    "Good morning,",
    "Dear team,",
    "Excuse me,",
    "Please help,",
    "Good evening,",
    "Dear sir or madam,",
    "Hey,",
    "Good day,",
    "To whom it concerns,",
)

PROBLEMS = (
    "my new card has still not come",
    "I cannot find my card anywhere",
    "the cash machine did not return my card",
    "the money I sent never arrived",
    "a shop took money without asking me",
    "I live somewhere else now",
    "you charged me for paying abroad",
    "the app does not take my password",
    "my limit is too low for a flight",
    "I want to leave your bank",
    "a stranger has bought things with my card",
    "the transfer to my sister is missing",
    "my letter box is empty since weeks",
    "my salary is not in my account",
    "I was charged twice for one lunch",
    "somebody knows my secret number",
    "the card reader refuses my card",
    "I cannot log in on my new phone",
    "my name has changed",
)

DETAILS = (
    "since Monday.",
    "and it is urgent.",
    "what should I do?",
    "can you look into it?",
    "as I wrote last week.",
    "please call me back.",
    "and I travel tomorrow.",
    "who can help me here?",
    "it happened in Lisbon.",
    "thank you very much.",
    "is this normal?",
    "I have waited long enough.",
    "nobody answers the phone.",
)

FORMS = (
    ("Anna Keller", "Marco Rossi", "Jane Porter", "Tomas Novak", "Leila Haddad", "Erik Lund", "Priya Nair"),
    ("coffee grinder", "desk lamp", "vacuum cleaner", "camera bag", "kettle", "garden chair", "electric drill",
     "radio", "bicycle pump", "winter coat", "toaster"),
    ("49.90 euros", "120 dollars", "18.50 pounds", "230 euros", "75 dollars", "310 pounds", "64.20 euros",
     "15 dollars", "99 pounds", "205.10 euros", "42 dollars", "57 pounds", "88.80 euros"),
    ("3 March", "17 April", "28 June", "9 August", "21 October"),
    ("want my money back", "would like a new one", "ask for a repair", "expect a call from you"),
)  # fmt: skip

# No option is the beginning of another: where one is, a grammar asks for the end of the text as well, scoring does not.
_STEMS = {
    "card": ("arrival date", "arrival abroad", "lost at home", "lost abroad", "stolen", "broken", "blocked by mistake",
             "blocked on purpose", "not accepted in shop", "not accepted online", "number unknown", "expires soon",
             "limit too low", "in a new name"),
    "cash": ("machine kept card", "machine gave too little", "machine gave nothing", "machine fee", "limit a day",
             "limit a month", "paid in but not shown", "paid in twice"),
    "transfer": ("not arrived here", "not arrived abroad", "arrived twice", "to wrong account", "to wrong person",
                 "fee too high", "fee not expected", "cancelled by bank", "cannot be cancelled", "still pending here",
                 "still pending abroad", "time by country"),
    "account": ("opening for a child", "opening for a company", "opening online", "closing now",
                "closing after a death", "statement missing", "statement wrong", "locked after password",
                "locked by court", "in two names"),
    "payment": ("declined in shop", "declined online", "taken twice", "taken in wrong amount",
                "in foreign currency fee", "in foreign currency rate", "by phone fails", "by phone set up",
                "unknown at home", "unknown from abroad"),
    "refund": ("not shown yet", "not shown on card", "too low", "asked for once", "asked for twice"),
    "exchange rate": ("question", "seems wrong", "of yesterday", "for cash"),
    "password": ("forgotten", "not accepted", "change online", "change by letter"),
    "identity": ("check failed", "check why", "check documents", "check takes long"),
    "loan": ("conditions", "early repayment", "rate too high", "rate paid late", "refused without reason",
             "refused by mistake"),
}  # fmt: skip
OPTIONS_77 = tuple(f" {stem} {rest}" for stem, rests in _STEMS.items() for rest in rests)
EXAMPLES_77 = (
    ("card stolen", "Somebody took my purse on the bus this morning."),
    ("transfer not arrived abroad", "My brother in Chile says that the rent has not reached him."),
    ("payment unknown at home", "There is a debit of 30 euros that I never agreed to."),
    ("loan rate too high", "Why do I pay so much more each month than my neighbour?"),
    ("password forgotten", "I cannot get into my account, I no longer know the word."),
    ("cash machine gave nothing", "The machine kept my money and only printed a slip."),
)
