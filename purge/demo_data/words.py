"""What invented people are called, and where they live and shop."""

# locale, country, cities, streets, first names, surnames, mail domains
PLACES = [
    ("en-GB", "GB", ["London", "Leeds", "St Andrews", "Llanfairfechan"], ["High Street", "Mill Lane", "Queen's Road"],
     ["Amelia", "Wendy", "Oliver", "Siân", "George", "Aoife", "Zoë", "Harry", "Priya", "Callum"],
     ["Smith", "O'Connor", "Taylor", "Llewellyn-Jones", "D'Arcy", "Patel", "MacDonald", "Ó Briain", "Wright", "Green"],
     ["gmail.com", "btinternet.com", "outlook.com", "hotmail.co.uk", "virginmedia.com"]),
    ("fr-FR", "FR", ["Paris", "Lyon", "Saint-Étienne", "Besançon"], ["rue de l'Église", "avenue Foch", "place du Marché"],
     ["Chloé", "François", "Anaïs", "Jérôme", "Maëlle", "Noël", "Inès", "Benoît", "Léa", "Loïc"],
     ["Lefèvre", "d'Aubigné", "Garçon", "Müller", "Dubois", "Hébert", "L'Huillier", "Bérenger", "Moreau", "Roux"],
     ["orange.fr", "free.fr", "laposte.net", "gmail.com", "wanadoo.fr"]),
    ("de-DE", "DE", ["Köln", "München", "Berlin", "Görlitz"], ["Hauptstraße", "Am Mühlbach", "Goethestraße"],
     ["Jürgen", "Änne", "Björn", "Käthe", "Sören", "Lukas", "Mia", "Götz", "Emma", "Max"],
     ["Müller", "Weiß", "Schröder", "Groß", "Jäger", "Böhm", "von der Heide", "Schmidt", "Öztürk", "Kühn"],
     ["web.de", "gmx.de", "t-online.de", "gmail.com", "posteo.de"]),
    ("es-ES", "ES", ["Sevilla", "A Coruña", "León", "Málaga"], ["calle Mayor", "avenida de América", "plaza España"],
     ["José", "María", "Íñigo", "Lucía", "Ángel", "Begoña", "Sofía", "Andrés", "Noelia", "Raúl"],
     ["García", "Núñez", "Ibáñez", "Peña", "Muñoz", "López", "Castaño", "Gómez-Acebo", "Vázquez", "Soler"],
     ["gmail.com", "hotmail.es", "yahoo.es", "telefonica.net", "outlook.es"]),
    ("pl-PL", "PL", ["Łódź", "Kraków", "Gdańsk", "Poznań"], ["ulica Długa", "aleja Róż", "plac Wolności"],
     ["Łukasz", "Żaneta", "Paweł", "Małgorzata", "Grażyna", "Michał", "Zofia", "Jakub", "Bożena", "Jan"],
     ["Wójcik", "Kowalska", "Wiśniewski", "Żak", "Śliwa", "Nowak", "Dąbrowska", "Krawczyk", "Pająk", "Lis"],
     ["wp.pl", "onet.pl", "o2.pl", "gmail.com", "interia.pl"]),
]  # fmt: skip
LONG_DOMAIN = "customer-correspondence.the-very-long-established-trading-company.co.uk"
CURRENCIES = {"GB": "GBP", "PL": "PLN"}
SUBJECTS = [
    "Thank you for your order",
    "Your friend has joined",
    "Your reward is on its way",
    "We miss you",
    "How did we do?",
]
EVENTS = ["signed up", "shared a link", "visited", "bought", "opened an e-mail", "claimed a reward"]
TAGS = ["VIP", "newsletter", "complained", "wholesale", "press"]
NOTES = ["{name} asked for an invoice by post.", "Called {name} back about a late parcel.", "{name} prefers the phone."]
COMMENTS = ["Quick and friendly.", "The parcel came late.", None, None, "Lovely people!"]
